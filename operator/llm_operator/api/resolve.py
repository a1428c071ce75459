"""What a spec means where it leaves something out. Pure; no spec is invalid here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llm_operator.api.pods import PodSettings
from llm_operator.api.resources import Resources
from llm_operator.api.serving import LLMServingSpec
from llm_operator.api.training import LLMTrainingSpec, Publication, Stage
from llm_trainer.config import KINDS, Dataset, FineTuning, InputUse, StageModel, kind_of, settings_of

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


def published_stage(spec: LLMTrainingSpec, entry: Publication) -> str:
    """The name of the stage whose result an entry of spec.publish is about."""
    return entry.stage or spec.stages[-1].name


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


def has_training_tokenizer(spec: LLMTrainingSpec, index: int) -> bool:
    """Whether a stage reads its rows by the training's tokenizer, so that data preparation can check them with it."""
    source = stage_model(spec, index)
    if source is None:
        return True
    if source.uri:
        return source.uri == spec.model.uri and spec.tokenizer is None
    before = next((i for i, stage in enumerate(spec.stages[:index]) if stage.name == source.stage), None)
    return before is not None and (bool(spec.stages[before].pretrain) or has_training_tokenizer(spec, before))


def language_models(stages: list[Stage]) -> list[str]:
    """Names of the stages from which others may start."""
    return [stage.name for stage in stages if (settings := settings_of(stage)) and settings.yields == "model"]


@dataclass(frozen=True)
class NamedUri:
    """A URI that a spec names. ``field``: where the user wrote it; ``use``: what of a repository is needed."""

    field: str
    uri: str
    use: InputUse
    stream: bool = False  # read where it lies
    allow_pickle: bool = False


def named_uris(spec: LLMTrainingSpec) -> Iterator[NamedUri]:
    """All that a training reads and has not made itself, in the order of the spec."""
    if spec.model.uri:
        yield NamedUri("spec.model.uri", spec.model.uri, "model", allow_pickle=spec.model.allow_pickle)
    if spec.tokenizer and spec.tokenizer.uri:
        yield NamedUri("spec.tokenizer.uri", spec.tokenizer.uri, "tokenizer")
    for index, source in enumerate(spec.data.sources if spec.data else []):
        yield NamedUri(f"spec.data.sources[{index}].uri", source.uri, "data", source.stream)
    for index, uri in enumerate(evaluation_uris(spec)):
        yield NamedUri(f"spec.data.quality.decontamination.uris[{index}]", uri, "data")
    for index, stage in enumerate(spec.stages):
        path, settings = f"spec.stages[{index}]", settings_of(stage)
        kind = KINDS.get(kind_of(stage), "")
        if stage.model and stage.model.uri:
            yield NamedUri(f"{path}.model.uri", stage.model.uri, "model", allow_pickle=stage.model.allow_pickle)
        if dataset := stage_dataset(stage):
            yield NamedUri(f"{path}.{kind}.dataset.uri", dataset.uri, "data")
        for number, task in enumerate(stage.evaluation.tasks):
            if task.uri:
                yield NamedUri(f"{path}.evaluation.tasks[{number}].uri", task.uri, "data")
        for reference in settings.references() if settings else ():
            if reference.model.uri:
                own = f"{path}.{kind}.{reference.field}.uri"
                yield NamedUri(own, reference.model.uri, "model", allow_pickle=reference.model.allow_pickle)


def evaluation_uris(spec: LLMTrainingSpec) -> list[str]:
    """Of the evaluation sets that the corpus must not quote."""
    quality = spec.data.quality if spec.data else None
    return quality.decontamination.uris if quality and quality.decontamination else []
