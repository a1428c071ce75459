"""The stages of a training in order, data preparation first, and what each one's pods are told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_operator.api.memory import stage_flops_per_token, stage_memory
from llm_operator.api.quantities import quantity_of
from llm_operator.api.resolve import (
    data_resources_of,
    nodes_of,
    processes_per_node,
    resources_of,
    stage_dataset,
    stage_model,
)
from llm_operator.api.resources import Resources
from llm_operator.api.training import DATA_STAGE, LLMTrainingSpec
from llm_operator.api.training_status import StageStatus
from llm_operator.kube.plan import Manifest
from llm_operator.training.names import run_name
from llm_trainer.config import (
    KINDS,
    DatasetCheck,
    FineTuning,
    FunctionCheck,
    Model,
    ModelCheck,
    PrepareData,
    StageConfig,
    Tokenizer,
    TrainingSettings,
    claim_of,
    functions_of,
    kind_of,
    settings_of,
)

DATA_KIND = "prepareData"


@dataclass(frozen=True)
class PlannedStage:
    """One entry of status.stages. ``index`` is its place in spec.stages, -1 for data preparation."""

    name: str
    kind: str
    index: int
    nodes: int
    processes_per_node: int
    resources: Resources
    memory_per_process: str | None = None
    flops_per_token: int | None = None

    @property
    def device(self) -> str:
        """Torch's name of it, which is cuda for AMD's GPUs too."""
        return device_of(self.resources)


def device_of(resources: Resources) -> str:
    return "cuda" if resources.gpus else "cpu"


def planned_stages(spec: LLMTrainingSpec) -> list[PlannedStage]:
    data = PlannedStage(DATA_STAGE, DATA_KIND, -1, 1, 1, data_resources_of(spec))
    return [
        data,
        *(
            PlannedStage(
                stage.name,
                KINDS.get(kind_of(stage), ""),
                index,
                nodes_of(spec, stage),
                processes_per_node(spec, stage),
                resources_of(spec, stage),
                quantity_of(memory.per_process) if (memory := stage_memory(spec, index)) else None,
                stage_flops_per_token(spec, index),
            )
            for index, stage in enumerate(spec.stages)
        ),
    ]


def stage_config(
    training: Manifest,
    spec: LLMTrainingSpec,
    stage: PlannedStage,
    attempt: int,
    results: Mapping[str, str],
    digests: Mapping[str, str] | None = None,
) -> StageConfig:
    """What the pods of an attempt read.

    ``results`` has the URIs of finished stages' results by stage name. ``digests``: by URI, of these and checkpoints.
    """
    metadata = training["metadata"]
    written = spec.stages[stage.index] if stage.index >= 0 else None
    settings = settings_of(written) if written else None
    return StageConfig.model_validate(
        {
            "training": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "stage": stage.name,
            "attempt": attempt,
            "nodes": stage.nodes,
            "processes_per_node": stage.processes_per_node,
            "device": stage.device,
            "run_uri": run_uri(training, spec),
            "resumes": spec.resume_from is not None,
            "model": starting_model(spec, stage, results),
            "prepare_data": prepare_data(spec) if settings is None else None,
            "results": named_results(settings, results) if settings else {},
            "digests": dict(digests or {}),
            **({kind_of(written): settings.model_dump(exclude={"model"})} if written and settings else {}),
        }
    )


def run_uri(training: Manifest, spec: LLMTrainingSpec) -> str:
    """The folder of all that the training writes: its own, or the one that it takes up."""
    if spec.resume_from:
        return spec.resume_from.uri
    claim = spec.storage.persistent_volume_claim.claim_name
    return f"pvc://{claim}/{run_name(training['metadata']['name'], training['metadata']['uid'])}"


def known_digests(stages: Sequence[StageStatus], stage: StageStatus) -> dict[str, str]:
    """By URI, of what the pods of a stage may read; somebody else may have written there since."""
    results = {known.result.uri: known.result.digest for known in stages if known.result and known.name != stage.name}
    checkpoint = stage.checkpoint
    return {**results, checkpoint.uri: checkpoint.digest} if checkpoint and checkpoint.digest else results


def named_results(settings: TrainingSettings, results: Mapping[str, str]) -> dict[str, str]:
    """Of the stages that the settings name beside the one to start from."""
    names = (reference.model.stage for reference in settings.references())
    return {name: results[name] for name in names if name}


def starting_model(spec: LLMTrainingSpec, stage: PlannedStage, results: Mapping[str, str]) -> Model | None:
    if stage.index < 0:
        return None
    source = stage_model(spec, stage.index)
    if source is None:
        return Model(architecture=spec.model.architecture)
    return Model(uri=source.uri or results[source.stage or ""])


def prepare_data(spec: LLMTrainingSpec) -> PrepareData:
    """The corpus and the tokenizer; and every dataset's columns, checked before a later stage takes its GPUs."""
    return PrepareData(
        data=spec.data,
        tokenizer=spec.tokenizer or Tokenizer(uri=spec.model.uri),
        architecture=spec.model.architecture,
        model_uri=spec.model.uri,
        sequence_length=max((stage.pretrain.length for stage in spec.stages if stage.pretrain), default=None),
        datasets=[
            DatasetCheck.of(
                settings,
                f"spec.stages[{i}].{KINDS[kind_of(stage)]}",
                stage.name,
                training_tokenizer=has_training_tokenizer(spec, i),
                model_uri=first_model_uri(spec, i),
            )
            for i, stage in enumerate(spec.stages)
            if isinstance(settings := settings_of(stage), FineTuning)
        ],
        functions=[
            FunctionCheck.of(function, f"spec.stages[{i}]", settings, device_of(resources_of(spec, stage)))
            for i, stage in enumerate(spec.stages)
            if (settings := settings_of(stage))
            for function in functions_of(stage)
        ],
        models=list(named_models(spec)),
    )


def named_models(spec: LLMTrainingSpec) -> Iterator[ModelCheck]:
    """Every model that the user names by a URI, once for each field."""
    if spec.model.uri:
        yield ModelCheck(field="spec.model.uri", uri=spec.model.uri, **longest_rows(spec, spec.model.uri))
    for index, stage in enumerate(spec.stages):
        field, settings = f"spec.stages[{index}]", settings_of(stage)
        if stage.model and stage.model.uri:
            own = longest_rows(spec, stage.model.uri)
            yield ModelCheck(field=f"{field}.model.uri", stage=stage.name, uri=stage.model.uri, **own)
        for reference in settings.references() if settings else ():
            if reference.model.uri:
                path = f"{field}.{KINDS[kind_of(stage)]}.{reference.field}.uri"
                scores = reference.wanted == "rewardModel"
                yield ModelCheck(field=path, stage=stage.name, uri=reference.model.uri, scores=scores)


def longest_rows(spec: LLMTrainingSpec, uri: str) -> dict[str, Any]:
    """Of the stages that start from this model, perhaps by way of others: the longest rows, and whose they are."""
    found = [
        (settings.length, settings.length_name(f"spec.stages[{i}].{KINDS[kind_of(stage)]}"))
        for i, stage in enumerate(spec.stages)
        if (settings := settings_of(stage)) and first_model_uri(spec, i) == uri
    ]
    length, field = max(found, default=(0, ""), key=lambda each: each[0])
    return {"length": length, "length_field": field}


def has_training_tokenizer(spec: LLMTrainingSpec, index: int) -> bool:
    """Whether a stage reads its rows by the training's tokenizer, so that data preparation can check them with it."""
    source = stage_model(spec, index)
    if source is None:
        return True
    if source.uri:
        return source.uri == spec.model.uri and spec.tokenizer is None
    before = next((i for i, stage in enumerate(spec.stages[:index]) if stage.name == source.stage), None)
    return before is not None and (bool(spec.stages[before].pretrain) or has_training_tokenizer(spec, before))


def first_model_uri(spec: LLMTrainingSpec, index: int) -> str | None:
    """Of the model that was there before the training, from which a stage starts, perhaps by way of others."""
    source = stage_model(spec, index)
    if source is None or source.uri:
        return source.uri if source else None
    before = next((i for i, stage in enumerate(spec.stages[:index]) if stage.name == source.stage), None)
    return first_model_uri(spec, before) if before is not None else None


def claims_of(spec: LLMTrainingSpec) -> list[str]:
    """Every PersistentVolumeClaim that the training's pods mount; the storage first."""
    uris = [spec.model.uri, spec.tokenizer.uri if spec.tokenizer else None]
    uris += [source.uri for source in (spec.data.sources if spec.data else [])]
    for index, stage in enumerate(spec.stages):
        dataset, model = stage_dataset(stage), stage_model(spec, index)
        uris += [dataset.uri if dataset else None, model.uri if model else None]
        settings = settings_of(stage)
        uris += [reference.model.uri for reference in settings.references()] if settings else []
    return list(dict.fromkeys([spec.storage.persistent_volume_claim.claim_name, *claims(uris)]))


def claims(uris: Iterable[str | None]) -> list[str]:
    return [claim for uri in uris if uri and (claim := claim_of(uri))]
