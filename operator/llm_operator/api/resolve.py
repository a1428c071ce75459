"""What a spec means where it leaves something out. Pure; no spec is invalid here."""

from __future__ import annotations

from llm_operator.api.pods import PodSettings
from llm_operator.api.resources import Resources
from llm_operator.api.serving import LLMServingSpec
from llm_operator.api.training import LLMTrainingSpec, Stage
from llm_trainer.config import Dataset, FineTuning, StageModel, settings_of

LEAVE_SECONDS = 10  # until every node's kube-proxy and every client's connection pool has learned that a pod leaves
DRAIN_MARGIN_SECONDS = LEAVE_SECONDS + 10  # before a serving pod drains, and from its end to SIGKILL


def stage_dataset(stage: Stage) -> Dataset | None:
    """The rows that a stage reads beside the corpus."""
    settings = settings_of(stage)
    return settings.dataset if isinstance(settings, FineTuning) else None


def nodes_of(spec: LLMTrainingSpec, stage: Stage) -> int:
    return stage.nodes or spec.nodes


def resources_of(spec: LLMTrainingSpec, stage: Stage) -> Resources:
    return stage.resources or spec.resources


def data_resources_of(spec: LLMTrainingSpec) -> Resources:
    """Of data preparation, which uses no device: neither a GPU nor a network card."""
    return spec.prepare_data.resources or spec.resources.native()


def pods_of(spec: LLMTrainingSpec, stage: Stage | None) -> PodSettings:
    """Of a stage, or of data preparation for None: a field that it sets takes the place of the training's."""
    own = (stage or spec.prepare_data).pods
    changes = {name: value for name in own.model_fields_set if (value := getattr(own, name)) is not None}
    if stage is None:
        changes.setdefault("resource_claims", [])  # a training's are devices; see ``data_resources_of``
    return spec.pods.model_copy(update=changes)


def drain_seconds(spec: LLMServingSpec) -> int:
    """From the moment that a serving pod must go to its end at the latest."""
    return spec.drain_timeout_seconds + DRAIN_MARGIN_SECONDS


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
