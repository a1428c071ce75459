"""Who still writes into a run folder that another training would take up (spec.resumeFrom). Pure.

The folder itself knows its owner, and a pod of the one before can't write any more; that would end a training which
goes on well, so a taker waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.training_status import LLMTrainingStatus
from llm_operator.kube.plan import Manifest
from llm_operator.training.status import is_terminal


def occupant(training: Manifest, spec: LLMTrainingSpec, others: Iterable[Manifest]) -> str:
    """The name of one among the trainings of the namespace; empty if there is none.

    One that has ended or is suspended gives the folder up, and so does one that has not begun.
    """
    status = LLMTrainingStatus.model_validate(training.get("status") or {})
    if spec.resume_from is None or any(stage.start_time for stage in status.stages):
        return ""
    for other in others:
        if other["metadata"]["uid"] == training["metadata"]["uid"]:
            continue
        if (other.get("status") or {}).get("runUri") == spec.resume_from.uri and writes(other):
            return str(other["metadata"]["name"])
    return ""


def writes(training: Manifest) -> bool:
    """Whether it has an attempt under way, or will have one."""
    status = LLMTrainingStatus.model_validate(training["status"])
    if any(attempt.end_time is None for stage in status.stages for attempt in stage.attempts):
        return True
    started = any(stage.start_time for stage in status.stages)
    return started and not is_terminal(status) and not (training.get("spec") or {}).get("suspend")
