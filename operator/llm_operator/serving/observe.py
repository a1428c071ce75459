"""What a decision needs to know of a serving, read from the cache. No decisions are made here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llm_operator.api.resources import DEFAULT_DEVICES, Devices
from llm_operator.kube.cache import Cache
from llm_operator.kube.kinds import CLAIM, DEPLOYMENT, DISRUPTION_BUDGET, POD, SERVICE, TRAINING
from llm_operator.kube.plan import Key, Manifest


@dataclass(frozen=True)
class Observed:
    """``trainings`` are those that the spec names and that exist, by name; ``claims`` are those of the namespace."""

    serving: Manifest
    trainings: Mapping[str, Manifest] = field(default_factory=dict)
    deployments: tuple[Manifest, ...] = ()
    services: tuple[Manifest, ...] = ()
    disruption_budgets: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    claims: frozenset[str] = frozenset()
    serving_image: str = ""
    pull_secrets: tuple[str, ...] = ()
    devices: Devices = DEFAULT_DEVICES


def observe(
    cache: Cache, key: Key, serving_image: str, devices: Devices, pull_secrets: tuple[str, ...] = ()
) -> Observed | None:
    serving = cache.get(key.kind, key.namespace, key.name)
    if serving is None:
        return None
    named = {name: cache.get(TRAINING.name, key.namespace, name) for name in referenced_trainings(serving)}
    return Observed(
        serving=serving,
        trainings={name: training for name, training in named.items() if training},
        deployments=tuple(cache.children(DEPLOYMENT.name, key)),
        services=tuple(cache.children(SERVICE.name, key)),
        disruption_budgets=tuple(cache.children(DISRUPTION_BUDGET.name, key)),
        pods=tuple(cache.children(POD.name, key)),
        claims=frozenset(claim["metadata"]["name"] for claim in cache.objects(CLAIM.name, key.namespace)),
        serving_image=serving_image,
        pull_secrets=pull_secrets,
        devices=devices,
    )


def referenced_trainings(serving: Manifest) -> set[str]:
    """The names of the trainings that a serving follows, whatever else its spec says."""
    spec = serving.get("spec") or {}
    sources = [spec.get("model") or {}, *(spec.get("adapters") or ())]
    return {source["training"]["name"] for source in sources if (source.get("training") or {}).get("name")}
