"""How new pods take the place of old ones. Pure.

Where the spec leaves it open a new pod comes first, so that capacity never falls. If no node holds one more, that
rollout would wait for ever: then an old pod goes first, until the rollout is over. That is done only if what the
scheduler looks at is the same in both pods, so that the new one fits where the old one was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_operator.api.reasons import Reason
from llm_operator.api.serving import LLMServingSpec
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import held_up
from llm_operator.kube.templates import digest_of
from llm_operator.serving.annotations import PLACE
from llm_operator.serving.fleet import Fleet, annotations_of
from llm_operator.serving.names import CONTAINER

# Of a pod's spec, what decides on which nodes it fits.
PLACED_BY = (
    "nodeSelector", "affinity", "tolerations", "topologySpreadConstraints", "schedulerName", "runtimeClassName",
    "priorityClassName", "hostNetwork", "resourceClaims",
)  # fmt: skip
# Of its volumes, those that any node has room for.
ANYWHERE = ("configMap", "secret", "emptyDir", "projected", "downwardAPI")


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
    volumes = [volume for volume in pod_spec["volumes"] if not any(kind in volume for kind in ANYWHERE)]
    return digest_of([resources, volumes, *(pod_spec.get(field) for field in PLACED_BY)])


def roll(
    spec: LLMServingSpec, deployment: Manifest, fleet: Fleet, without_room: Mapping[str, float], patience: float
) -> Rollout:
    """``without_room``: the seconds for which pods, by uid, were seen to find none; ``patience``: how many they may."""
    if spec.strategy.type == "Recreate":
        return Rollout({"type": "Recreate"})
    if given := spec.strategy.rolling_update:
        return Rollout(rolling(given.max_surge, given.max_unavailable))
    strategy = (deployment.get("spec") or {}).get("strategy") or {}
    if (strategy.get("rollingUpdate") or {}).get("maxSurge") == 0 and not fleet.rolled_out(spec.replicas):
        return REPLACE  # it was begun so, and the room that it has made is for its own pods
    waits = [without_room.get(pod["metadata"]["uid"], 0.0) for pod in behind_older(fleet)]
    if not waits:
        return SURGE
    if max(waits) >= patience:
        return REPLACE
    return Rollout(SURGE.strategy, wait=patience - max(waits))


def behind_older(fleet: Fleet) -> list[Manifest]:
    """The new pods that find no room, and would find it where an old one runs."""
    places = {annotations_of(pod).get(PLACE) for pod in fleet.older} - {None}
    return [pod for pod in fleet.newest if no_room(pod) and annotations_of(pod).get(PLACE) in places]


def no_room(pod: Manifest) -> bool:
    found = held_up(pod, CONTAINER)
    return found is not None and found.reason == Reason.UNSCHEDULABLE
