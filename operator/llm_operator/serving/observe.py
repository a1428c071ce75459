"""What a decision needs to know of a serving, read from the cache. No decisions are made here."""

from __future__ import annotations

from dataclasses import dataclass

from llm_operator.kube.cache import Cache
from llm_operator.kube.kinds import CLAIM, DEPLOYMENT, DISRUPTION_BUDGET, POD, SERVICE, TRAINING
from llm_operator.kube.plan import Key, Manifest


@dataclass(frozen=True)
class Observed:
    """``training`` is the one that the spec names, if it exists; ``claims`` are those of the namespace."""

    serving: Manifest
    training: Manifest | None = None
    deployments: tuple[Manifest, ...] = ()
    services: tuple[Manifest, ...] = ()
    disruption_budgets: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    claims: frozenset[str] = frozenset()
    serving_image: str = ""


def observe(cache: Cache, key: Key, serving_image: str) -> Observed | None:
    serving = cache.get(key.kind, key.namespace, key.name)
    if serving is None:
        return None
    training = referenced_training(serving)
    return Observed(
        serving=serving,
        training=cache.get(TRAINING.name, key.namespace, training) if training else None,
        deployments=tuple(cache.children(DEPLOYMENT.name, key)),
        services=tuple(cache.children(SERVICE.name, key)),
        disruption_budgets=tuple(cache.children(DISRUPTION_BUDGET.name, key)),
        pods=tuple(cache.children(POD.name, key)),
        claims=frozenset(claim["metadata"]["name"] for claim in cache.objects(CLAIM.name, key.namespace)),
        serving_image=serving_image,
    )


def referenced_training(serving: Manifest) -> str | None:
    """The name of the training that a serving follows, whatever else its spec says."""
    model = (serving.get("spec") or {}).get("model") or {}
    name: str | None = (model.get("training") or {}).get("name")
    return name
