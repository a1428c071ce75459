"""How new pods take the place of old ones. Pure.

Where the spec leaves it open a new pod comes first, so that capacity never falls. If no node holds one more, that
rollout would wait for ever: then an old pod goes first, until the rollout is over. That is done only if what the
scheduler looks at is the same in both pods, so that the new one fits where the old one was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_operator.api.conditions import find, seconds_of
from llm_operator.api.reasons import Reason, ServingCondition
from llm_operator.api.serving import LLMServingSpec, LLMServingStatus
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import held_up
from llm_operator.kube.templates import digest_of
from llm_operator.serving.annotations import PLACE
from llm_operator.serving.fleet import Fleet, annotations_of
from llm_operator.serving.names import CONTAINER

# Of a pod's spec, what decides on which nodes it fits.
PLACED_BY = (
    "nodeSelector", "affinity", "tolerations", "topologySpreadConstraints", "schedulerName", "runtimeClassName",
    "priorityClassName", "hostNetwork", "resourceClaims", "volumes",
)  # fmt: skip


@dataclass(frozen=True)
class Rollout:
    """``replaces``: an old pod goes before its successor. ``wait``: seconds until that may be decided."""

    strategy: dict[str, Any]
    replaces: bool = False
    wait: float | None = None


def rolling(surge: int, unavailable: int) -> dict[str, Any]:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


SURGE, REPLACE = Rollout(rolling(1, 0)), Rollout(rolling(0, 1), replaces=True)


def place_of(pod_spec: Manifest) -> str:
    """Equal for two pods of which one fits wherever the other was."""
    resources = [container["resources"] for container in pod_spec["containers"]]
    return digest_of([resources, *(pod_spec.get(field) for field in PLACED_BY)])


def roll(
    spec: LLMServingSpec, deployment: Manifest, fleet: Fleet, old: LLMServingStatus, patience: float, now: float
) -> Rollout:
    """``patience``: seconds for which a new pod may find no room."""
    if spec.strategy.type == "Recreate":
        return Rollout({"type": "Recreate"})
    if given := spec.strategy.rolling_update:
        return Rollout(rolling(given.max_surge, given.max_unavailable))
    strategy = (deployment.get("spec") or {}).get("strategy") or {}
    if (strategy.get("rollingUpdate") or {}).get("maxSurge") == 0 and not fleet.rolled_out(spec.replicas):
        return REPLACE  # it was begun so, and the room that it has made is for its own pods
    if not old_pod_is_in_the_way(fleet):
        return SURGE
    told = find(old.conditions, ServingCondition.PROGRESSING)
    stuck = told is not None and told.status == "False"
    waited = now - seconds_of(told.last_transition_time) if told and stuck else 0.0
    if waited >= patience or waited < 0:  # below 0: another clock has written it
        return REPLACE
    return Rollout(SURGE.strategy, wait=patience - waited)


def old_pod_is_in_the_way(fleet: Fleet) -> bool:
    """Whether a new pod finds no room, and would find it where an old one runs."""
    places = {annotations_of(pod).get(PLACE) for pod in fleet.older} - {None}
    return any(no_room(pod) and annotations_of(pod).get(PLACE) in places for pod in fleet.newest)


def no_room(pod: Manifest) -> bool:
    found = held_up(pod, CONTAINER)
    return found is not None and found.reason == Reason.UNSCHEDULABLE
