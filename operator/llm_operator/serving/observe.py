"""What a decision needs to know of a serving, read from the cache. No decisions are made here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llm_operator.api.resources import DEFAULT_DEVICES, Devices
from llm_operator.kube.cache import Cache
from llm_operator.kube.kinds import CLAIM, DEPLOYMENT, DISRUPTION_BUDGET, NETWORK_POLICY, POD, SERVICE, TRAINING
from llm_operator.kube.network import Network
from llm_operator.kube.plan import Key, Manifest
from llm_operator.kube.sightings import Sightings
from llm_operator.serving.chat_template import UNKNOWN, Word
from llm_operator.serving.rollout import no_room
from llm_operator.settings import Settings


@dataclass(frozen=True)
class Observed:
    """``trainings`` are those that the spec names and that exist, by name; ``claims`` are those of the namespace.

    ``without_room`` has the seconds for which this operator has seen that a pod, by its uid, finds no room.
    """

    serving: Manifest
    trainings: Mapping[str, Manifest] = field(default_factory=dict)
    deployments: tuple[Manifest, ...] = ()
    services: tuple[Manifest, ...] = ()
    disruption_budgets: tuple[Manifest, ...] = ()
    network_policies: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    without_room: Mapping[str, float] = field(default_factory=dict)
    claims: frozenset[str] = frozenset()
    chat_template: Word = UNKNOWN  # what its ConfigMap holds
    serving_image: str = ""
    trainer_image: str = ""  # which has the launcher of llm_server
    pull_secrets: tuple[str, ...] = ()  # of every pod, beside the user's
    network: Network | None = None  # None: no NetworkPolicies are made
    surge_timeout: float = 60.0  # seconds
    devices: Devices = DEFAULT_DEVICES

    @property
    def deployment(self) -> Manifest:
        """Empty if there is none."""
        return self.deployments[0] if self.deployments else {}


def observe(
    cache: Cache, key: Key, settings: Settings, chat_template: Word, sightings: Sightings, now: float
) -> Observed | None:
    """``now`` is in seconds of the clock of ``sightings``."""
    serving = cache.get(key.kind, key.namespace, key.name)
    if serving is None:
        return None
    pods = tuple(cache.children(POD.name, key))
    named = {name: cache.get(TRAINING.name, key.namespace, name) for name in referenced_trainings(serving)}
    return Observed(
        serving=serving,
        trainings={name: training for name, training in named.items() if training},
        deployments=tuple(cache.children(DEPLOYMENT.name, key)),
        services=tuple(cache.children(SERVICE.name, key)),
        disruption_budgets=tuple(cache.children(DISRUPTION_BUDGET.name, key)),
        network_policies=tuple(cache.children(NETWORK_POLICY.name, key)),
        pods=pods,
        without_room=sightings.ages(key, uids_without_room(pods), now),
        claims=frozenset(claim["metadata"]["name"] for claim in cache.objects(CLAIM.name, key.namespace)),
        chat_template=chat_template,
        serving_image=settings.serving_image,
        trainer_image=settings.trainer_image,
        pull_secrets=settings.child_image_pull_secrets,
        network=Network.of(settings.network_policies, settings.pod_namespace),
        surge_timeout=settings.surge_timeout_seconds,
        devices=settings.devices,
    )


def uids_without_room(pods: Iterable[Manifest]) -> list[str]:
    return [pod["metadata"]["uid"] for pod in pods if no_room(pod)]


def referenced_trainings(serving: Manifest) -> set[str]:
    """The names of the trainings that a serving follows, whatever else its spec says."""
    spec = serving.get("spec") or {}
    sources = [spec.get("model") or {}, *(spec.get("adapters") or ())]
    return {source["training"]["name"] for source in sources if (source.get("training") or {}).get("name")}
