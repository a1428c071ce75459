"""What a spec means where it leaves something out. Pure; no spec is invalid here."""

from __future__ import annotations

from llm_operator.api.resources import Resources
from llm_operator.api.training import LLMTrainingSpec, Stage
from llm_trainer.config import Dataset, FineTuning, StageModel, settings_of


def stage_dataset(stage: Stage) -> Dataset | None:
    """The rows that a stage reads beside the corpus."""
    settings = settings_of(stage)
    return settings.dataset if isinstance(settings, FineTuning) else None


def nodes_of(spec: LLMTrainingSpec, stage: Stage) -> int:
    return stage.nodes or spec.nodes


def resources_of(spec: LLMTrainingSpec, stage: Stage) -> Resources:
    return stage.resources or spec.resources


def processes_per_node(spec: LLMTrainingSpec, stage: Stage) -> int:
    return spec.processes_per_node or resources_of(spec, stage).gpus or 1


def world_size(spec: LLMTrainingSpec, stage: Stage) -> int:
    return nodes_of(spec, stage) * processes_per_node(spec, stage)


def stage_model(spec: LLMTrainingSpec, index: int) -> StageModel | None:
    """Where a stage's model comes from; None: from scratch, by spec.model.architecture."""
    stage = spec.stages[index]
    settings = settings_of(stage)
    if settings and settings.model:
        return settings.model
    if not stage.pretrain and (earlier := language_models(spec.stages[:index])):
        return StageModel(stage=earlier[-1])
    return StageModel(uri=spec.model.uri) if spec.model.uri else None


def language_models(stages: list[Stage]) -> list[str]:
    """Names of the stages from which others may start."""
    return [stage.name for stage in stages if (settings := settings_of(stage)) and settings.yields == "model"]
