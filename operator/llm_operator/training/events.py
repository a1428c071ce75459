"""Events follow from what a pass changes in the status. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from llm_operator.api.conditions import find, is_true
from llm_operator.api.reasons import Reason, TrainingCondition
from llm_operator.api.training_status import LLMTrainingStatus, StageStatus
from llm_operator.kube.plan import Event
from llm_operator.training.bounds import CURRENT, bounded

HELD_UP = (
    Reason.CLAIM_NOT_FOUND,
    Reason.RUN_FOLDER_IN_USE,
    Reason.CLAIM_ACCESS_MODE,
    Reason.APPLY_REFUSED,
    Reason.FAILED_CREATE,
    Reason.UNSCHEDULABLE,
    Reason.SCHEDULING_GATED,
    Reason.FAILED_MOUNT,
    Reason.INIT_CONTAINER_FAILED,
    Reason.IMAGE_PULL_FAILED,
)
NEWS = (Reason.TUNED, Reason.LAYERS_COMPILED, Reason.PROCESSES_CHANGED, Reason.TAKEN_OVER)  # nothing is to be done


def events_between(old: LLMTrainingStatus, new: LLMTrainingStatus) -> Iterator[Event]:
    new = bounded(new, other=CURRENT)  # a stage that ends now has told nothing new by keeping less
    before = {stage.name: stage for stage in old.stages}
    for stage in new.stages:
        yield from stage_events(before.get(stage.name), stage)
    yield from condition_events(old, new)


def stage_events(old: StageStatus | None, new: StageStatus) -> Iterator[Event]:
    known = {attempt.number: attempt for attempt in old.attempts} if old else {}
    for attempt in new.attempts:
        before = known.get(attempt.number)
        if attempt.fault and not (before and before.end_time):
            said = f"stage {new.name}, attempt {attempt.number}: {attempt.message}"
            yield Event("Warning", Reason.ATTEMPT_FAILED, said)
        if before is None and attempt.number == 1 and new.attempts[-1] is attempt:
            yield Event("Normal", Reason.STAGE_STARTED, f"stage {new.name} starts with {count(new.nodes)}")
    for notice in new.notices:
        if old is None or notice not in old.notices:
            said = f"stage {new.name}: {notice.message}"
            yield Event("Normal" if notice.reason in NEWS else "Warning", notice.reason, said)
    if new.result and not (old and old.result and old.result.digest == new.result.digest):
        said = f"stage {new.name}: {new.result.uri} ({new.result.digest[:19]})"
        yield Event("Normal", Reason.RESULT_PUBLISHED, said)
    if new.state == "Succeeded" and not (old and old.state == "Succeeded"):
        yield Event("Normal", Reason.STAGE_SUCCEEDED, f"stage {new.name} succeeded")


def count(pods: int) -> str:
    return "1 pod" if pods == 1 else f"{pods} pods"


def condition_events(old: LLMTrainingStatus, new: LLMTrainingStatus) -> Iterator[Event]:
    for kind, holds in ((TrainingCondition.ACCEPTED, "False"), (TrainingCondition.FAILED, "True")):
        now, before = find(new.conditions, kind), find(old.conditions, kind)
        if now and now.status == holds and not (before and before.status == holds and before.message == now.message):
            yield Event("Warning", now.reason, now.message)
    for kind in (TrainingCondition.FAILED, TrainingCondition.SUCCEEDED):
        if is_true(old.conditions, kind) and (now := find(new.conditions, kind)) and now.status == "False":
            yield Event("Normal", now.reason, now.message)
    done, was_done = (is_true(status.conditions, TrainingCondition.SUCCEEDED) for status in (new, old))
    if done and not was_done:
        yield Event("Normal", Reason.SUCCEEDED, "all stages succeeded")
    if done and was_done and accepted(new) and new.observed_generation != old.observed_generation:
        said = f"generation {new.observed_generation} of the spec: all stages have succeeded, so nothing runs again; "
        yield Event("Normal", Reason.NOTHING_TO_RUN, f"{said}add a stage, or make a new LLMTraining")
    running, before = (find(status.conditions, TrainingCondition.RUNNING) for status in (new, old))
    if running and running.reason in HELD_UP and not (before and before.reason == running.reason):
        yield Event("Warning", running.reason, running.message)


def accepted(status: LLMTrainingStatus) -> bool:
    return is_true(status.conditions, TrainingCondition.ACCEPTED)
