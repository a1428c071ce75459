"""What the status knows of the stages that the spec plans. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.training_status import AttemptStatus, LLMTrainingStatus, StageStatus
from llm_operator.training.stages import PlannedStage, planned_stages


def known_stages(spec: LLMTrainingSpec, old: LLMTrainingStatus) -> tuple[list[PlannedStage], list[StageStatus]]:
    """The planned stages, and one status for each, in order."""
    planned = as_started(planned_stages(spec), old.stages)
    stages = merged(planned, old.stages)
    if spec.restart_token != old.observed_restart_token:
        stages = [with_new_budgets(stage) for stage in stages]
    return planned, stages


def as_started(planned: Sequence[PlannedStage], known: Sequence[StageStatus]) -> list[PlannedStage]:
    """A stage keeps the number of pods with which it started: its checkpoints are of so many processes."""
    nodes = {stage.name: stage.nodes for stage in known if stage.start_time}
    return [replace(stage, nodes=nodes.get(stage.name, stage.nodes)) for stage in planned]


def merged(planned: Sequence[PlannedStage], known: Sequence[StageStatus]) -> list[StageStatus]:
    """One status per planned stage; what is known of a stage stays. A stage that was removed is forgotten."""
    by_name = {stage.name: stage for stage in known}
    return [
        with_shape(by_name.get(stage.name, StageStatus(name=stage.name, kind=stage.kind)), stage) for stage in planned
    ]


def with_shape(stage: StageStatus, planned: PlannedStage) -> StageStatus:
    """What the spec says now is for the next attempt: one that is under way, or was the last, stays what it is."""
    if stage.state == "Succeeded" or open_attempt(stage):
        return stage
    shape = ("kind", "nodes", "memory_per_process", "flops_per_token")
    return stage.model_copy(update={name: getattr(planned, name) for name in shape})


def with_new_budgets(stage: StageStatus) -> StageStatus:
    """The count of restarts for people goes on; nothing is used of the budgets, and nothing waits."""
    return stage if stage.since_progress is None else stage.model_copy(update={"since_progress": None})


def open_attempt(stage: StageStatus) -> AttemptStatus | None:
    last = stage.attempts[-1] if stage.attempts else None
    return last if last and last.end_time is None else None


def next_number(stage: StageStatus) -> int:
    """Of the next attempt. It only grows, whatever happens: on the storage it keeps stale attempts from writing."""
    return stage.attempts[-1].number + 1 if stage.attempts else 1


def unfinished(stages: Sequence[StageStatus]) -> int | None:
    """Index of the stage whose turn it is; None if all have succeeded."""
    return next((index for index, stage in enumerate(stages) if stage.state != "Succeeded"), None)
