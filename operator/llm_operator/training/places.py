"""Under what else the cache finds a training, so that nobody walks over all of a namespace."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from llm_operator.api.reasons import Reason
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
    namespace, status = training["metadata"]["namespace"], training.get("status") or {}
    resumes = (training.get("spec") or {}).get("resumeFrom")
    named = resumes.get("uri") if isinstance(resumes, dict) else None
    for uri in {uri for uri in (status.get("runUri"), named) if uri and isinstance(uri, str)}:
        yield folder_place(namespace, uri)
    conditions = status.get("conditions")
    told = [one.get("reason") for one in conditions if isinstance(one, dict)] if isinstance(conditions, list) else []
    if any(reason in CLAIM_REASONS for reason in told):
        yield claim_place(namespace)
