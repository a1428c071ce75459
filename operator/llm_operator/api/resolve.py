"""What a spec means where it leaves something out. Pure; no spec is invalid here."""

from __future__ import annotations

import math

from llm_operator.api.common import Resources
from llm_operator.api.training import LLMTrainingSpec, PretrainStage, SftStage, Stage, StageModel
from llm_trainer.config import Dataset

GPU = "nvidia.com/gpu"
STAGE_KINDS = ("pretrain", "sft")  # fields of Stage; each of them yields a model


def stage_kind(stage: Stage) -> str:
    """The name of the one stage kind that is set; of the first if there are more, empty if there is none."""
    return next((kind for kind in STAGE_KINDS if getattr(stage, kind) is not None), "")


def stage_settings(stage: Stage) -> PretrainStage | SftStage | None:
    return stage.pretrain or stage.sft


def stage_dataset(stage: Stage) -> Dataset | None:
    """The rows that a stage reads beside the corpus."""
    return stage.sft.dataset if stage.sft else None


def stage_length(stage: Stage) -> int | None:
    """Tokens of the longest row that a stage asks for."""
    if stage.pretrain:
        return stage.pretrain.sequence_length
    return stage.sft.max_length if stage.sft else None


def nodes_of(spec: LLMTrainingSpec, stage: Stage) -> int:
    return stage.nodes or spec.nodes


def resources_of(spec: LLMTrainingSpec, stage: Stage) -> Resources:
    return stage.resources or spec.resources


def gpus_of(resources: Resources) -> int:
    """GPUs of a pod; 0 for anything that is no whole number."""
    quantity = resources.limits.get(GPU, resources.requests.get(GPU, 0))
    return int(quantity) if str(quantity).isdecimal() else 0


def cpus_of(resources: Resources) -> int | None:
    """CPUs of a pod by its limit, else its request, rounded up; None if it has neither or they are no quantity."""
    quantity = str(resources.limits.get("cpu", resources.requests.get("cpu", "")))
    try:
        cpus = float(quantity.removesuffix("m")) / (1000 if quantity.endswith("m") else 1)
    except ValueError:
        return None
    return max(1, math.ceil(cpus))


def processes_per_node(spec: LLMTrainingSpec, stage: Stage) -> int:
    return spec.processes_per_node or gpus_of(resources_of(spec, stage)) or 1


def world_size(spec: LLMTrainingSpec, stage: Stage) -> int:
    return nodes_of(spec, stage) * processes_per_node(spec, stage)


def stage_model(spec: LLMTrainingSpec, index: int) -> StageModel | None:
    """Where a stage's model comes from; None: from scratch, by spec.model.architecture."""
    stage = spec.stages[index]
    settings = stage_settings(stage)
    if settings and settings.model:
        return settings.model
    if not stage.pretrain and index > 0:
        return StageModel(stage=spec.stages[index - 1].name)
    return StageModel(uri=spec.model.uri) if spec.model.uri else None
