"""The stages of a training in order, data preparation first, and what each one's pods are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_operator.api.estimate import MemoryEstimate, stage_estimate
from llm_operator.api.memory import NONE_TOLD, Sizes, stage_flops_per_token, stage_memory
from llm_operator.api.quantities import quantity_of
from llm_operator.api.resolve import (
    data_resources_of,
    has_training_tokenizer,
    named_uris,
    nodes_of,
    processes_per_node,
    resources_of,
    stage_model,
)
from llm_operator.api.resources import Resources
from llm_operator.api.training import DATA_STAGE, LLMTrainingSpec
from llm_operator.api.training_status import StageStatus
from llm_operator.kube.credentials import mounted_credentials
from llm_operator.kube.plan import Manifest
from llm_operator.training.names import run_name
from llm_operator.training.patience import patience_seconds
from llm_trainer.config import (
    KINDS,
    DatasetCheck,
    FineTuning,
    FunctionCheck,
    MixtureCheck,
    Model,
    ModelCheck,
    PrepareData,
    RemoteInput,
    StageConfig,
    TaskCheck,
    Tokenizer,
    TrainingSettings,
    claim_of,
    functions_of,
    is_remote,
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
    peak_memory: dict[str, str] | None = None

    @property
    def device(self) -> str:
        """Torch's name of it, which is cuda for AMD's GPUs too."""
        return device_of(self.resources)


def device_of(resources: Resources) -> str:
    return "cuda" if resources.gpus else "cpu"


def planned_stages(spec: LLMTrainingSpec, told: Sizes = NONE_TOLD) -> list[PlannedStage]:
    """``told``: what data preparation has said of the models."""
    data = PlannedStage(DATA_STAGE, DATA_KIND, -1, spec.prepare_data.nodes, 1, data_resources_of(spec))
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
                quantity_of(memory.per_process) if (memory := stage_memory(spec, index, told)) else None,
                stage_flops_per_token(spec, index, told),
                told_peak(stage_estimate(spec, index)),
            )
            for index, stage in enumerate(spec.stages)
        ),
    ]


def told_peak(estimate: MemoryEstimate | None) -> dict[str, str] | None:
    """As the status has it."""
    if estimate is None:
        return None
    told = {**estimate.terms, "total": estimate.per_process, "pod": estimate.host}
    return {name: quantity_of(size) for name, size in told.items()}


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
            "patience_seconds": patience_seconds(spec, stage.index),
            "run_uri": run_uri(training, spec),
            "resumes": spec.resume_from is not None,
            "model": starting_model(spec, stage, results),
            "prepare_data": prepare_data(spec) if settings is None else None,
            "results": named_results(settings, results) if settings else {},
            "digests": dict(digests or {}),
            "tracking": [tracker.model_dump() for tracker in spec.tracking] if settings else [],
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
        **(longest_rows(spec, None) if spec.model.architecture else {}),
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
        tasks=list(named_tasks(spec)),
        mixtures=[
            MixtureCheck(
                field=f"spec.stages[{i}].pretrain.mixture",
                stage=stage.name,
                after=stage_before(spec, i),
                mixture=pretrain.mixture,
                rows=pretrain.total_rows,
                length=pretrain.sequence_length,
            )
            for i, stage in enumerate(spec.stages)
            if (pretrain := stage.pretrain) and pretrain.mixture is not None
        ],
        remote=remote_inputs(spec),
        credentials=mounted_credentials(spec.credentials),
    )


def named_tasks(spec: LLMTrainingSpec) -> Iterator[TaskCheck]:
    """Every task of the stages' evaluations, with the metrics that their thresholds name."""
    for index, stage in enumerate(spec.stages):
        named = [threshold.metric.partition("/") for threshold in stage.evaluation.thresholds]
        for number, task in enumerate(stage.evaluation.tasks):
            yield TaskCheck(
                field=f"spec.stages[{index}].evaluation.tasks[{number}].uri",
                stage=stage.name,
                metrics=[metric for name, _, metric in named if name == task.name],
                **task.model_dump(),
            )


def stage_before(spec: LLMTrainingSpec, index: int) -> str:
    """The stage with whose rows of each source a pretrain stage goes on (`llm_trainer.stages.continued`); or none."""
    own, at = spec.stages[index].pretrain, index
    while own and (source := stage_model(spec, at)) and source.stage:
        at = next((i for i, stage in enumerate(spec.stages[:at]) if stage.name == source.stage), -1)
        if at < 0:
            return ""
        if before := spec.stages[at].pretrain:
            same = (before.sequence_length, before.seed) == (own.sequence_length, own.seed)
            return spec.stages[at].name if same and before.mixture is not None else ""
    return ""


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


def longest_rows(spec: LLMTrainingSpec, uri: str | None) -> dict[str, Any]:
    """Of the stages that start from this model, perhaps by way of others: the longest rows, and whose they are.

    ``uri``: None for the model from scratch.
    """
    found = [
        (settings.length, settings.length_name(f"spec.stages[{i}].{KINDS[kind_of(stage)]}"))
        for i, stage in enumerate(spec.stages)
        if (settings := settings_of(stage)) and first_model_uri(spec, i) == uri
    ]
    length, field = max(found, default=(0, ""), key=lambda each: each[0])
    return {"length": length, "length_field": field}


def first_model_uri(spec: LLMTrainingSpec, index: int) -> str | None:
    """Of the model that was there before the training, from which a stage starts, perhaps by way of others."""
    source = stage_model(spec, index)
    if source is None or source.uri:
        return source.uri if source else None
    before = next((i for i, stage in enumerate(spec.stages[:index]) if stage.name == source.stage), None)
    return first_model_uri(spec, before) if before is not None else None


def claims_of(spec: LLMTrainingSpec) -> list[str]:
    """Every PersistentVolumeClaim that the training's pods mount; the storage first."""
    named = (claim_of(each.uri) for each in named_uris(spec))
    return list(dict.fromkeys([spec.storage.persistent_volume_claim.claim_name, *filter(None, named)]))


def remote_inputs(spec: LLMTrainingSpec) -> list[RemoteInput]:
    """What data preparation fetches, each once for each use."""
    found = {(each.uri, each.use): each for each in reversed(list(named_uris(spec))) if is_remote(each.uri)}
    return [RemoteInput(field=each.field, uri=each.uri, use=each.use) for each in reversed(list(found.values()))]
