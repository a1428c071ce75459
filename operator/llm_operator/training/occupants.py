"""Who has a run folder before the training that would take it up (spec.resumeFrom). Pure.

The folder itself knows its owner, and a pod of the one before can't write any more; that would end a training which
goes on well, so a taker waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from llm_operator.api.conditions import find
from llm_operator.api.reasons import Reason, TrainingCondition
from llm_operator.api.training_status import AttemptStatus, LLMTrainingStatus
from llm_operator.kube.plan import Manifest
from llm_operator.training.gang import has_ended, job_of
from llm_operator.training.status import is_terminal


@dataclass(frozen=True)
class Tenant:
    """A training that has the folder or would take it up. ``status`` None: it can't be read."""

    training: Manifest
    status: LLMTrainingStatus | None
    pods: Sequence[Manifest] = ()

    @classmethod
    def of(cls, training: Manifest, pods: Sequence[Manifest] = ()) -> Tenant:
        try:
            status = LLMTrainingStatus.model_validate(training.get("status") or {})
        except ValidationError:
            status = None
        return cls(training, status, pods)

    @property
    def attempts(self) -> Iterator[AttemptStatus]:
        for stage in self.status.stages if self.status else ():
            yield from stage.attempts

    @property
    def under_way(self) -> bool:
        return any(attempt.end_time is None for attempt in self.attempts)

    @property
    def owns(self) -> bool:
        """It has made something in the folder."""
        return self.status is not None and any(stage.checkpoint or stage.result for stage in self.status.stages)

    @property
    def writes(self) -> bool:
        """Now: an attempt is under way, or pods of a suspended one commit a checkpoint. Who can't be read may."""
        suspended = {attempt.job for attempt in self.attempts if attempt.reason == Reason.SUSPENDED}
        commits = any(job_of(pod) in suspended and not has_ended(pod) for pod in self.pods)
        return self.status is None or self.under_way or commits

    @property
    def will_write(self) -> bool:
        """Unless it is changed: one that has ended, is suspended or can't work gives the folder up."""
        if self.status is None or is_terminal(self.status) or (self.training.get("spec") or {}).get("suspend"):
            return False
        accepted = find(self.status.conditions, TrainingCondition.ACCEPTED)
        return accepted is None or accepted.status == "True"

    @property
    def turn(self) -> tuple[bool, bool, bool, str, str]:
        """Of those that don't write now the lowest goes first: whose the folder is, who has begun, who was there first.

        No two are the same, so no two wait for each other.
        """
        metadata = self.training["metadata"]
        takes = bool((self.training.get("spec") or {}).get("resumeFrom"))
        begun = any(True for _ in self.attempts)
        return not self.owns, takes, not begun, metadata.get("creationTimestamp", ""), metadata["uid"]


def occupant(taker: Tenant, tenants: Iterable[Tenant]) -> str:
    """The name of the one that is waited for; empty if there is none. The taker may be among the tenants."""
    if taker.under_way or taker.owns:
        return ""
    for other in tenants:
        if other.training["metadata"]["uid"] == taker.training["metadata"]["uid"]:
            continue
        if other.writes or (other.will_write and other.turn < taker.turn):
            return str(other.training["metadata"]["name"])
    return ""
