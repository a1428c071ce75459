"""Under what else the cache finds a training, so that nobody walks over all of a namespace."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from llm_operator.api.reasons import Reason
from llm_operator.kube.fields import objects_at, text_at
from llm_operator.kube.plan import Manifest

CLAIM_REASONS = (Reason.CLAIM_NOT_FOUND, Reason.CLAIM_ACCESS_MODE)


def folder_place(namespace: str, uri: str) -> Hashable:
    """The trainings that have this run folder, or would take it up."""
    return "run folder", namespace, uri


def claim_place(namespace: str) -> Hashable:
    """The trainings that wait for a claim."""
    return "claim", namespace


def places(training: Manifest) -> Iterator[Hashable]:
    """Of one training, read from what may be wrong."""
    namespace = training["metadata"]["namespace"]
    named = text_at(training, "status", "runUri"), text_at(training, "spec", "resumeFrom", "uri")
    for uri in {*named} - {""}:
        yield folder_place(namespace, uri)
    if any(one.get("reason") in CLAIM_REASONS for one in objects_at(training, "status", "conditions")):
        yield claim_place(namespace)
