"""Children that nobody needs any more. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llm_operator.api.conditions import seconds_of
from llm_operator.api.reasons import Reason
from llm_operator.api.training_status import AttemptStatus, LLMTrainingStatus
from llm_operator.kube.plan import Delete, Manifest
from llm_operator.training.observe import Observed, attempt_of


def superseded(observed: Observed, old: LLMTrainingStatus) -> list[Manifest]:
    """Of attempts that ended badly, as the status already says. Those that ended well keep their logs."""
    known = attempts_by_place(old)
    return [
        child
        for child in remaining(observed)
        if (attempt := known.get(attempt_of(child))) and attempt.end_time and attempt.reason != Reason.SUCCEEDED
    ]


def orphaned(observed: Observed, new: LLMTrainingStatus) -> list[Manifest]:
    """Of attempts that the status doesn't know, nor will after this pass.

    A pass made them and died before it could say so, and since then things have changed; or they are too old to be
    shown. A young one may be no orphan: of two watches one may be late, and the status that knows it be on its way.
    """
    known = attempts_by_place(new)
    return [child for child in remaining(observed) if attempt_of(child) not in known]


def remaining(observed: Observed) -> Iterator[Manifest]:
    """Children that nobody is deleting."""
    for child in (*observed.jobs, *observed.services, *observed.config_maps):
        if "deletionTimestamp" not in child["metadata"]:
            yield child


def attempts_by_place(status: LLMTrainingStatus) -> dict[tuple[str, int], AttemptStatus]:
    """Attempts by stage and number."""
    return {(stage.name, attempt.number): attempt for stage in status.stages for attempt in stage.attempts}


def created(child: Manifest) -> float:
    """Seconds since the epoch."""
    time = child["metadata"].get("creationTimestamp")
    return seconds_of(time) if time else 0.0


def deletions(children: Iterable[Manifest]) -> tuple[Delete, ...]:
    found = (
        Delete(child["apiVersion"], child["kind"], child["metadata"]["name"], child["metadata"]["uid"])
        for child in children
    )
    return tuple(dict.fromkeys(found))
