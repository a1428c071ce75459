"""Who has a run folder before the training that would take it up (spec.resumeFrom). Pure.

The folder itself knows its owner, and a pod of the one before can't write any more; that would end a training which
goes on well, so a taker waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from llm_operator.api.conditions import find
from llm_operator.api.reasons import LEFT, TrainingCondition
from llm_operator.api.training_status import LLMTrainingStatus
from llm_operator.kube.fields import object_at
from llm_operator.kube.plan import Manifest
from llm_operator.training.gang import has_ended, job_of
from llm_operator.training.status import is_terminal

PodsOf = Callable[["Tenant"], Iterable[Manifest]]


@dataclass(frozen=True)
class Tenant:
    """A training that has the folder or would take it up: what its spec and status tell, small enough to be kept."""

    uid: str
    name: str
    readable: bool  # the status; who can't be read may write
    under_way: bool  # an attempt is
    owns: bool  # it has made something in the folder
    will_write: bool  # unless it is changed: one that has ended, is suspended or can't work gives the folder up
    turn: tuple[bool, bool, bool, str, str]
    """Of those that don't write now the lowest goes first: whose the folder is, who has begun, who was there first.

    No two are the same, so no two wait for each other.
    """
    suspended: frozenset[str]  # Jobs, whose pods may still commit a checkpoint

    @classmethod
    def of(cls, training: Manifest) -> Tenant:
        metadata, spec = training["metadata"], object_at(training, "spec")
        try:
            status = LLMTrainingStatus.model_validate(training.get("status") or {})
        except ValidationError:
            status = None
        stages = status.stages if status else []
        attempts = [attempt for stage in stages for attempt in stage.attempts]
        owns = any(stage.checkpoint or stage.result for stage in stages)
        created = metadata.get("creationTimestamp", "")
        return cls(
            uid=metadata["uid"],
            name=metadata["name"],
            readable=status is not None,
            under_way=any(attempt.end_time is None for attempt in attempts),
            owns=owns,
            will_write=status is not None and will_write(spec, status),
            turn=(not owns, bool(spec.get("resumeFrom")), not attempts, created, metadata["uid"]),
            suspended=frozenset(attempt.job for attempt in attempts if attempt.reason in LEFT),
        )

    def writes(self, pods_of: PodsOf) -> bool:
        """Now."""
        if not self.readable or self.under_way:
            return True
        return bool(self.suspended) and any(
            job_of(pod) in self.suspended and not has_ended(pod) for pod in pods_of(self)
        )


def will_write(spec: Manifest, status: LLMTrainingStatus) -> bool:
    if is_terminal(status) or spec.get("suspend"):
        return False
    accepted = find(status.conditions, TrainingCondition.ACCEPTED)
    return accepted is None or accepted.status == "True"


def occupant(taker: Tenant, tenants: Iterable[Tenant], pods_of: PodsOf) -> str:
    """The name of the one that is waited for; empty if there is none. The taker may be among the tenants."""
    if taker.under_way or taker.owns:
        return ""
    for other in tenants:
        if other.uid == taker.uid:
            continue
        if (other.will_write and other.turn < taker.turn) or other.writes(pods_of):
            return other.name
    return ""
