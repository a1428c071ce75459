"""What the status knows of the stages that the spec plans. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llm_operator.api.families import ModelSize
from llm_operator.api.resolve import nodes_of
from llm_operator.api.training import LLMTrainingSpec, Stage
from llm_operator.api.training_status import AttemptStatus, LLMTrainingStatus, ModelSizeStatus, StageStatus
from llm_operator.api.training_validation import fit_problems, training_problems
from llm_operator.api.validation import InvalidSpecError
from llm_operator.training.mixtures import token_problems
from llm_operator.training.stages import PlannedStage, planned_stages
from llm_operator.training.unfetched import unfetched_problems

MOST = 2**50  # parameters; what follows from them is a whole number to a status


def known_stages(spec: LLMTrainingSpec, old: LLMTrainingStatus) -> tuple[list[PlannedStage], list[StageStatus]]:
    """The planned stages, and one status for each, in order. ``spec`` is as it was begun."""
    planned = planned_stages(spec, told_sizes(old.stages))
    stages = merged(planned, old.stages)
    if spec.restart_token != old.observed_restart_token:
        stages = [with_new_budgets(stage) for stage in stages]
    return planned, stages


def as_begun(spec: LLMTrainingSpec, known: Sequence[StageStatus]) -> LLMTrainingSpec | InvalidSpecError:
    """The spec with the number of pods that stages keep whose experts are spread: so are those of their checkpoints.

    A stage that failed without a checkpoint keeps none. An error if another number made the spec valid, or if a stage
    can't fit, has too few tokens or names what was not fetched, by what data preparation has told.
    """
    nodes = {stage.name: stage.nodes for stage in known if keeps_nodes(stage)}
    kept = {stage.name: nodes[stage.name] for stage in spec.stages if spreads_experts(stage) and stage.name in nodes}
    stages = [stage.model_copy(update={"nodes": kept.get(stage.name, stage.nodes)}) for stage in spec.stages]
    begun = spec
    if [nodes_of(spec, stage) for stage in stages] != [nodes_of(spec, stage) for stage in spec.stages]:
        begun = spec.model_copy(update={"stages": stages})
        if problems := tuple(training_problems(begun)):
            why = ", ".join(f"stage {name} keeps nodes: {number}" for name, number in kept.items())
            return InvalidSpecError((*problems, f"{why}, as a checkpoint's experts lie with so many processes"))
    problems = (
        *fit_problems(begun, told_sizes(known)),
        *token_problems(begun, known),
        *unfetched_problems(begun, known),
    )
    return InvalidSpecError(problems) if problems else begun


def told_sizes(known: Sequence[StageStatus]) -> dict[str, ModelSize]:
    """Of the models that data preparation has looked at, by URI. What no model has is not believed of a pod."""
    models = [model for stage in known for model in stage.models]
    return {model.uri: size_of(model) for model in models if max(model.parameters, model.attention_width << 16) < MOST}


def size_of(told: ModelSizeStatus) -> ModelSize:
    figures = told.model_dump(exclude={"uri", "parameters"})
    return ModelSize(total=told.parameters, **figures)


def spreads_experts(stage: Stage) -> bool:
    return stage.pretrain is not None and stage.pretrain.expert_parallel > 1


def keeps_nodes(stage: StageStatus) -> bool:
    if stage.state == "Failed":
        return stage.checkpoint is not None
    return stage.start_time is not None and stage.state != "Succeeded"


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
    shape = ("kind", "nodes", "memory_per_process", "flops_per_token", "peak_memory")
    return stage.model_copy(update={name: getattr(planned, name) for name in shape})


def with_new_budgets(stage: StageStatus) -> StageStatus:
    """The count of restarts for people goes on; nothing is used of the budgets, and nothing waits."""
    return stage if stage.since_progress is None else stage.model_copy(update={"since_progress": None})


def open_attempt(stage: StageStatus) -> AttemptStatus | None:
    last = stage.attempts[-1] if stage.attempts else None
    return last if last and last.end_time is None else None


def next_number(stage: StageStatus) -> int:
    """Of the next attempt, as far as the status knows; what is there may bear a greater one (``tries.py``)."""
    return stage.attempts[-1].number + 1 if stage.attempts else 1


def whose_turn(stages: Sequence[StageStatus]) -> int | None:
    """Index of the stage that has an attempt under way, wherever the spec puts it by now; else of the first that has
    not succeeded, None if all have.
    """
    under_way = next((index for index, stage in enumerate(stages) if open_attempt(stage)), None)
    first = next((index for index, stage in enumerate(stages) if stage.state != "Succeeded"), None)
    return first if under_way is None else under_way
