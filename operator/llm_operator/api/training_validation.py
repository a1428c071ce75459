"""What must hold of a training's spec beyond its types: the whole, its stages, what all kinds of stage share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pydantic.alias_generators import to_camel

from llm_operator.api.adapters import adapter_problems
from llm_operator.api.architecture import architecture_problems
from llm_operator.api.data_validation import data_problems
from llm_operator.api.evaluation_validation import evaluation_problems
from llm_operator.api.kind_validation import kind_problems
from llm_operator.api.memory import NONE_TOLD, Sizes, stage_flops_per_token, stage_memory, training_size
from llm_operator.api.pod_validation import training_pod_problems
from llm_operator.api.publish_validation import publish_problems
from llm_operator.api.quantities import bytes_of, quantity_of
from llm_operator.api.references import (
    credential_problems,
    exactly_one,
    pickle_problems,
    reference_problems,
    uri_problems,
)
from llm_operator.api.resolve import (
    evaluation_uris,
    nodes_of,
    processes_per_node,
    resources_of,
    stage_model,
    world_size,
)
from llm_operator.api.resources import resource_problems
from llm_operator.api.sharing import sharing_problems
from llm_operator.api.training import DATA_STAGE, LLMTrainingSpec, Stage
from llm_trainer.config import KINDS, FineTuning, TrainingSettings, claim_of, kind_of, settings_of

LARGEST_COUNT = 2**53


def training_problems(spec: LLMTrainingSpec) -> Iterator[str]:
    yield from exactly_one("spec.model", spec.model, "architecture", "uri")
    yield from uri_problems("spec.model.uri", spec.model.uri, "model")
    yield from pickle_problems("spec.model", spec.model.uri, allowed=spec.model.allow_pickle)
    wrong_shape = list(architecture_problems(spec.model.architecture)) if spec.model.architecture else []
    yield from wrong_shape
    if spec.model.architecture and spec.tokenizer is None:
        yield "spec.tokenizer: is required with spec.model.architecture; set train or uri"
    if spec.tokenizer:
        yield from exactly_one("spec.tokenizer", spec.tokenizer, "train", "uri")
        yield from uri_problems("spec.tokenizer.uri", spec.tokenizer.uri, "tokenizer")
        if spec.tokenizer.train and spec.data is None:
            yield "spec.data: is required to train a tokenizer; set spec.data.sources or spec.tokenizer.uri"
    for index, tracker in enumerate(spec.tracking):
        yield from exactly_one(f"spec.tracking[{index}]", tracker, "tensorboard", "mlflow", "wandb")
    yield from data_problems(spec)
    yield from data_uri_problems(spec)
    yield from credential_problems(spec.credentials)
    yield from resume_problems(spec)
    yield from publish_problems(spec)
    yield from resource_problems(spec.resources, "spec.resources")
    yield from stage_name_problems(spec)
    for index, stage in enumerate(spec.stages):
        yield from stage_problems(spec, index, stage)
        if not wrong_shape and not too_large(spec, index):
            yield from memory_problems(spec, index, stage, f"spec.stages[{index}]")
    if not wrong_shape and any(too_large(spec, index) for index in range(len(spec.stages))):
        yield "spec.model.architecture.config: makes a model beyond all machines; use smaller sizes"
    yield from training_pod_problems(spec)


def too_large(spec: LLMTrainingSpec, index: int) -> bool:
    """Whether its figures are no whole numbers to JSON, so that no status could hold them."""
    size, flops = training_size(spec), stage_flops_per_token(spec, index)
    return (size is not None and size.total > LARGEST_COUNT) or (flops or 0) > LARGEST_COUNT


def resume_problems(spec: LLMTrainingSpec) -> Iterator[str]:
    claim = spec.storage.persistent_volume_claim.claim_name
    if spec.resume_from and claim_of(spec.resume_from.uri) != claim:
        yield (
            f"spec.resumeFrom.uri: {spec.resume_from.uri} must be in the claim of spec.storage, {claim}, which the "
            "training goes on to write to; make them one"
        )


def data_uri_problems(spec: LLMTrainingSpec) -> Iterator[str]:
    for index, source in enumerate(spec.data.sources if spec.data else []):
        yield from uri_problems(f"spec.data.sources[{index}].uri", source.uri)
    for index, uri in enumerate(evaluation_uris(spec)):
        yield from uri_problems(f"spec.data.quality.decontamination.uris[{index}]", uri)


def stage_name_problems(spec: LLMTrainingSpec) -> Iterator[str]:
    for name, count in Counter(stage.name for stage in spec.stages).items():
        if count > 1:
            yield f"spec.stages: {count} stages are named {name!r}; give each its own name"
        if name == DATA_STAGE:
            yield f"spec.stages: {DATA_STAGE!r} is the name of data preparation; use another"


def stage_problems(spec: LLMTrainingSpec, index: int, stage: Stage) -> Iterator[str]:
    path = f"spec.stages[{index}]"
    given = [written for kind, written in KINDS.items() if getattr(stage, kind) is not None]
    if len(given) != 1:
        names = " and ".join(given) or "none"
        yield f"{path}: exactly one of {', '.join(KINDS.values())} must be set, not {names}"
    if settings := settings_of(stage):
        here = f"{path}.{KINDS[kind_of(stage)]}"
        yield from batch_problems(spec, stage, settings, path)
        yield from sharing_problems(spec, index, settings, path)
        yield from length_problems(spec, settings, here)
        yield from model_problems(spec, index, settings, path)
        yield from optimizer_problems(stage, path)
        yield from watch_problems(settings, path)
        yield from adapter_problems(spec, index, settings, path)
        yield from kind_problems(spec, stage, path)
        yield from evaluation_problems(spec, index, settings, path)
    if isinstance(settings, FineTuning):
        yield from uri_problems(f"{here}.dataset.uri", settings.dataset.uri)
    yield from process_problems(spec, stage, path)


def batch_problems(spec: LLMTrainingSpec, stage: Stage, settings: TrainingSettings, path: str) -> Iterator[str]:
    at_once = settings.micro_batch_size * max(1, world_size(spec, stage) // settings.processes_per_row)
    if settings.global_batch_size % at_once:
        shared = "".join(f" / {name} {size}" for name, size in settings.shared_work.items() if size > 1)
        nearest = max(1, round(settings.global_batch_size / at_once)) * at_once
        yield (
            f"{path}.globalBatchSize: {settings.global_batch_size} is not divisible by {at_once} (microBatchSize "
            f"{settings.micro_batch_size} × {nodes_of(spec, stage)} nodes × {processes_per_node(spec, stage)} "
            f"processes{shared}); use {nearest}, for example"
        )


def length_problems(spec: LLMTrainingSpec, settings: TrainingSettings, path: str) -> Iterator[str]:
    """Rows longer than the model's positions, as far as the spec says how many it has."""
    if not spec.model.architecture:
        return
    config = spec.model.architecture.config
    length, positions = settings.length, config.get("max_position_embeddings", config.get("n_positions"))
    if isinstance(positions, int) and length > positions:
        field = to_camel(settings.length_field)
        yield f"{path}.{field}: {length} is beyond the model's {positions} positions; use at most {positions}"


def model_problems(spec: LLMTrainingSpec, index: int, settings: TrainingSettings, path: str) -> Iterator[str]:
    """A stage starts from a language model that exists when its turn comes, and so do its rewards."""
    stage = spec.stages[index]
    if settings.model:
        yield from reference_problems(spec, index, settings.model, f"{path}.model", "model")
    elif stage_model(spec, index) is None and not stage.pretrain:
        yield f"{path}.model: there is no model to start from; set stage or uri, or put a pretrain stage before it"
    for field, model, wanted in settings.references():
        yield from reference_problems(spec, index, model, f"{path}.{KINDS[kind_of(stage)]}.{field}", wanted)


def optimizer_problems(stage: Stage, path: str) -> Iterator[str]:
    written = stage.optimizer
    if written.muon_learning_rate is not None and written.type != "muon":
        yield f"{path}.optimizer.muonLearningRate: is unused by {written.type}; remove it, or set type: muon"
    if written.function is not None and written.type != "adamw":
        yield f"{path}.optimizer.function: stands in the place of adamw; remove it, or type: {written.type}"


def watch_problems(settings: TrainingSettings, path: str) -> Iterator[str]:
    """What looks at the held-out loss needs one; the corpus always has."""
    watch = settings.loss_watch
    if watch is None or not watch.looks_at_held_out:
        return
    if "loss" not in settings.held_out:
        yield (
            f"{path}.lossWatch: reduceOnPlateau and earlyStop look at the held-out loss of pretrain, sft and "
            "rewardModel; remove them"
        )
    elif isinstance(settings, FineTuning) and not settings.dataset.validation_fraction:
        field = watch.looks_at_held_out
        yield f"{path}.lossWatch: {field} looks at the held-out loss; raise validationFraction above 0"


def process_problems(spec: LLMTrainingSpec, stage: Stage, path: str) -> Iterator[str]:
    if stage.resources:
        yield from resource_problems(stage.resources, f"{path}.resources")
    gpus = resources_of(spec, stage).gpus
    if spec.processes_per_node and gpus and spec.processes_per_node != gpus:
        yield (
            f"spec.processesPerNode: {spec.processes_per_node} contradicts the {gpus} GPUs of a pod of stage "
            f"{stage.name!r}; leave it out, one process per GPU follows"
        )


def fit_problems(spec: LLMTrainingSpec, told: Sizes) -> Iterator[str]:
    """Of the stages of a valid spec, by what data preparation has told of its models."""
    for index, stage in enumerate(spec.stages):
        yield from memory_problems(spec, index, stage, f"spec.stages[{index}]", told)


def memory_problems(
    spec: LLMTrainingSpec, index: int, stage: Stage, path: str, told: Sizes = NONE_TOLD
) -> Iterator[str]:
    """A stage that can't fit, as far as the sizes are known: of the model and of a GPU."""
    if spec.gpu_memory is None or not resources_of(spec, stage).gpus:
        return
    available, memory = bytes_of(spec.gpu_memory), stage_memory(spec, index, told)
    if memory is None or memory.per_process <= available:
        return
    if (zero_stage := memory.fitting_zero_stage(available)) is not None:
        remedy = f"use zeroStage {zero_stage}"
    elif processes := memory.fitting_processes(available):
        remedy = f"use zeroStage 3 on {processes} GPUs or more"
    else:
        remedy = "use a smaller model or larger GPUs"
    yield (
        f"{path}.zeroStage: with ZeRO {memory.zero_stage} on {memory.processes} GPUs, weights, gradients and optimizer "
        f"state take {quantity_of(memory.per_process)} of each, above spec.gpuMemory {spec.gpu_memory}; {remedy}"
    )
