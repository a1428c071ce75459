"""Under what else the cache finds a serving, so that a change of a training or a claim walks over no others."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from llm_operator.api.reasons import Reason
from llm_operator.kube.fields import objects_at
from llm_operator.kube.plan import Manifest
from llm_operator.serving.observe import referenced_trainings


def training_place(namespace: str, name: str) -> Hashable:
    """The servings that follow this training."""
    return "training", namespace, name


def claim_place(namespace: str) -> Hashable:
    """The servings that wait for a claim."""
    return "claim", namespace


def places(serving: Manifest) -> Iterator[Hashable]:
    """Of one serving, read from what may be wrong."""
    namespace = serving["metadata"]["namespace"]
    for name in referenced_trainings(serving):
        yield training_place(namespace, name)
    if waits_for_claim(serving):
        yield claim_place(namespace)


def waits_for_claim(serving: Manifest) -> bool:
    """Or may have been told of one that is gone by now."""
    told = [*objects_at(serving, "status", "conditions"), *objects_at(serving, "status", "adapters")]
    return not told or any(one.get("reason") == Reason.CLAIM_NOT_FOUND for one in told)
