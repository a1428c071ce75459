"""What must hold of a spec beyond its types. The CRD's CEL rules say as much of it as they can, here is all of it.

A problem reads "spec.path[0].field: what is wrong; what to do".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from llm_operator.api.adapters import adapter_problems
from llm_operator.api.architecture import architecture_problems, experts_of
from llm_operator.api.common import Spec, field_path
from llm_operator.api.memory import stage_flops_per_token, stage_memory, training_size
from llm_operator.api.parallel import parallel_problems
from llm_operator.api.pod_validation import serving_pod_problems, training_pod_problems
from llm_operator.api.quantities import bytes_of, quantity_of, shown
from llm_operator.api.resolve import nodes_of, processes_per_node, resources_of, stage_model, world_size
from llm_operator.api.resources import DEFAULT_DEVICES, Devices, resource_problems
from llm_operator.api.serving import Adapter, LLMServingSpec
from llm_operator.api.serving_validation import answer_problems
from llm_operator.api.text import cut
from llm_operator.api.training import DATA_STAGE, SHARED, LLMTrainingSpec, Stage
from llm_operator.api.vllm_environment import environment_problems
from llm_trainer.config import (
    EXPERT_PARALLEL_FAMILIES,
    KINDS,
    Dpo,
    FineTuning,
    Grpo,
    OnlineRl,
    Ppo,
    Pretrain,
    StageModel,
    TrainingSettings,
    claim_of,
    kind_of,
    local_path,
    settings_of,
)

LARGEST_COUNT = 2**53
MOST_PROBLEMS = 32  # that are told
PROBLEM_BYTES = 1024
SpecType = TypeVar("SpecType", bound=Spec)


class InvalidSpecError(ValueError):
    """A spec that can't work, with everything that is wrong with it."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def load_training(spec: object, devices: Devices = DEFAULT_DEVICES) -> LLMTrainingSpec:
    """Raises InvalidSpecError."""
    return _load(LLMTrainingSpec, spec, devices, training_problems)


def load_serving(spec: object, devices: Devices = DEFAULT_DEVICES) -> LLMServingSpec:
    """Raises InvalidSpecError."""
    return _load(LLMServingSpec, spec, devices, serving_problems)


def _load(
    model: type[SpecType], spec: object, devices: Devices, problems: Callable[[SpecType], Iterator[str]]
) -> SpecType:
    if spec is None:
        raise InvalidSpecError(("spec: is required; set it",))
    try:
        loaded = model.model_validate(spec, strict=True, by_alias=True, by_name=False, context={"devices": devices})
    except ValidationError as error:
        found = first(_say(detail) for detail in error.errors(include_url=False))
    else:
        found = first(problems(loaded))
        if not found:
            return loaded
    raise InvalidSpecError(found)  # here, so that it keeps neither pydantic's error nor the values in it


def first(problems: Iterator[str]) -> tuple[str, ...]:
    """Those that are told, each once and not longer than is read: a spec may have as many as it has bytes."""
    told: dict[str, None] = {}
    for problem in problems:
        if len(told) == MOST_PROBLEMS:
            return (*told, "and more; mend these first")
        told[cut(problem, PROBLEM_BYTES)] = None
    return tuple(told)


def _say(error: ErrorDetails) -> str:
    path = field_path("spec", *as_written(error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"{path}: there is no such field; remove it or correct its name"
    if error["type"] == "missing":
        return f"{path}: is required; set it"
    if error["type"] == "value_error":
        return f"{path}: {error['ctx']['error']}"
    return f"{path}: {error['msg']}, not {shown(error['input'])}"


def as_written(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where the user wrote a field of a stage's settings: what the kinds share stands beside the kind."""
    match location:
        case ("stages", int(), kind, field, *_) if kind in KINDS.values() and field in SHARED:
            return (*location[:2], *location[3:])
    return location


def exactly_one(path: str, choice: BaseModel, *fields: str) -> Iterator[str]:
    """Kubernetes' way of a union: one of the fields and no other."""
    given = [field for field in fields if getattr(choice, field) is not None]
    if len(given) != 1:
        names = " and ".join(given) if given else "none"
        yield f"{path}: exactly one of {', '.join(fields)} must be set, not {names}"


def uri_problems(path: str, uri: str | None) -> Iterator[str]:
    if uri is None:
        return
    try:
        local_path(uri)
    except ValueError as error:
        yield f"{path}: {error}"
    else:
        if not claim_of(uri) or "/" not in uri.removeprefix("pvc://").rstrip("/"):
            yield f"{path}: {uri!r} names no path in a claim; write pvc://CLAIM/PATH"


# --- LLMTraining -------------------------------------------------------------------------------------------------


def training_problems(spec: LLMTrainingSpec) -> Iterator[str]:
    yield from exactly_one("spec.model", spec.model, "architecture", "uri")
    yield from uri_problems("spec.model.uri", spec.model.uri)
    wrong_shape = list(architecture_problems(spec.model.architecture)) if spec.model.architecture else []
    yield from wrong_shape
    if spec.model.architecture and spec.tokenizer is None:
        yield "spec.tokenizer: is required with spec.model.architecture; set train or uri"
    if spec.tokenizer:
        yield from exactly_one("spec.tokenizer", spec.tokenizer, "train", "uri")
        yield from uri_problems("spec.tokenizer.uri", spec.tokenizer.uri)
        if spec.tokenizer.train and spec.data is None:
            yield "spec.data: is required to train a tokenizer; set spec.data.sources or spec.tokenizer.uri"
    yield from source_problems(spec)
    yield from resume_problems(spec)
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


def source_problems(spec: LLMTrainingSpec) -> Iterator[str]:
    sources = spec.data.sources if spec.data else []
    for name, count in Counter(source.name for source in sources).items():
        if count > 1:
            yield f"spec.data.sources: {count} sources are named {name!r}; give each its own name"
    for index, source in enumerate(sources):
        yield from uri_problems(f"spec.data.sources[{index}].uri", source.uri)


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
        yield from length_problems(spec, settings, here)
        yield from model_problems(spec, index, settings, path)
        yield from optimizer_problems(stage, path)
        yield from adapter_problems(spec, index, settings, path)
        yield from kind_problems(spec, stage, path)
    if isinstance(settings, FineTuning):
        yield from uri_problems(f"{here}.dataset.uri", settings.dataset.uri)
    yield from process_problems(spec, stage, path)


def batch_problems(spec: LLMTrainingSpec, stage: Stage, settings: TrainingSettings, path: str) -> Iterator[str]:
    at_once = settings.micro_batch_size * world_size(spec, stage)
    if settings.global_batch_size % at_once:
        nearest = max(1, round(settings.global_batch_size / at_once)) * at_once
        yield (
            f"{path}.globalBatchSize: {settings.global_batch_size} is not divisible by {at_once} (microBatchSize "
            f"{settings.micro_batch_size} × {nodes_of(spec, stage)} nodes × {processes_per_node(spec, stage)} "
            f"processes); use {nearest}, for example"
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


def reference_problems(
    spec: LLMTrainingSpec, index: int, reference: StageModel, path: str, wanted: str
) -> Iterator[str]:
    """``wanted``: what the stage that is named must yield."""
    yield from exactly_one(path, reference, "stage", "uri")
    yield from uri_problems(f"{path}.uri", reference.uri)
    if reference.stage is None:
        return
    earlier = spec.stages[:index]
    named = next((stage for stage in earlier if stage.name == reference.stage), None)
    names = ", ".join(stage.name for stage in earlier) or "none"
    settings = settings_of(named) if named else None
    if named is None:
        where = "comes later" if reference.stage in {s.name for s in spec.stages} else "does not exist"
        yield f"{path}.stage: stage {reference.stage!r} {where}; the stages before this one are {names}"
    elif settings and settings.yields != wanted:
        is_one = {"model": "a language model", "rewardModel": "a reward model, which writes no text"}
        choices = [stage.name for stage in earlier if (s := settings_of(stage)) and s.yields == wanted]
        yield (
            f"{path}.stage: stage {reference.stage!r} is {is_one[settings.yields]}; "
            f"name one of {', '.join(choices) or 'none'}"
        )


def optimizer_problems(stage: Stage, path: str) -> Iterator[str]:
    written = stage.optimizer
    if written.muon_learning_rate is not None and written.type != "muon":
        yield f"{path}.optimizer.muonLearningRate: is unused by {written.type}; remove it, or set type: muon"
    if written.function is not None and written.type != "adamw":
        yield f"{path}.optimizer.function: stands in the place of adamw; remove it, or type: {written.type}"


def kind_problems(spec: LLMTrainingSpec, stage: Stage, path: str) -> Iterator[str]:
    """What only one kind of stage can have wrong."""
    here = f"{path}.{KINDS[kind_of(stage)]}"
    if pretrain := stage.pretrain:
        yield from exactly_one(here, pretrain, "steps", "tokens")
        if spec.data is None:
            yield f"spec.data: is required by the pretrain stage {stage.name!r}; set spec.data.sources"
        if (warmup := pretrain.schedule.warmup_steps) >= pretrain.total_steps > 0:
            yield f"{path}.schedule.warmupSteps: {warmup} leaves none of the {pretrain.total_steps} steps; lower it"
        if pretrain.expert_parallel > 1:
            yield from expert_parallel_problems(spec, stage, pretrain, path)
    if stage.dpo:
        yield from loss_problems(stage.dpo, here)
    if stage.grpo:
        yield from generation_problems(stage.grpo, path)
    if stage.ppo:
        yield from rollout_problems(spec, stage.ppo, here)
    if isinstance(settings := settings_of(stage), OnlineRl):
        yield from reward_problems(settings, here)
        yield from vllm_problems(spec, stage, settings, here)


def expert_parallel_problems(spec: LLMTrainingSpec, stage: Stage, pretrain: Pretrain, path: str) -> Iterator[str]:
    here = f"{path}.pretrain.expertParallel"
    size, processes, architecture = pretrain.expert_parallel, world_size(spec, stage), spec.model.architecture
    if processes % size:
        yield f"{here}: the stage's {processes} processes are not divisible by {size}; use a divisor"
    if pretrain.zero_stage not in (1, 2):
        yield f"{path}.zeroStage: {pretrain.zero_stage} does not go with expertParallel {size}; use 1 or 2"
    if pretrain.optimizer.type != "adamw":
        yield f"{path}.optimizer.type: {pretrain.optimizer.type} does not go with expertParallel {size}; use adamw"
    if pretrain.optimizer.function:
        yield f"{path}.optimizer.function: does not go with expertParallel {size}; leave it out"
    if architecture is None:
        return
    experts = experts_of(architecture)
    if architecture.family not in EXPERT_PARALLEL_FAMILIES:
        choices = ", ".join(EXPERT_PARALLEL_FAMILIES)
        yield f"{here}: {size} is not for the family {architecture.family}; use 1, or one of {choices}"
    elif experts % size:
        yield f"{here}: the model's {experts} experts are not divisible by {size}; use a divisor"


def loss_problems(dpo: Dpo, path: str) -> Iterator[str]:
    for loss, count in Counter(dpo.loss_type).items():
        if count > 1:
            yield f"{path}.lossType: {loss} is given {count} times; give each loss once and weigh it by lossWeights"
    if "exo_pair" in dpo.loss_type and dpo.label_smoothing == 0:
        yield f"{path}.labelSmoothing: exo_pair needs one above 0; Ji et al. 2024 recommend 0.001"
    if dpo.loss_weights is not None and len(dpo.loss_weights) != len(dpo.loss_type):
        yield (
            f"{path}.lossWeights: must have a weight for each of lossType, {len(dpo.loss_type)} and not "
            f"{len(dpo.loss_weights)}"
        )


def generation_problems(grpo: Grpo, path: str) -> Iterator[str]:
    if grpo.global_batch_size % grpo.num_generations:
        yield (
            f"{path}.globalBatchSize: {grpo.global_batch_size} answers are not whole groups of numGenerations "
            f"{grpo.num_generations}; use a multiple of it"
        )


def rollout_problems(spec: LLMTrainingSpec, ppo: Ppo, path: str) -> Iterator[str]:
    size, batch = ppo.rollout_size, ppo.global_batch_size
    if size % batch:
        nearest = math.ceil(size / batch) * batch
        yield f"{path}.rolloutBatchSize: {size} is not a multiple of globalBatchSize {batch}; use {nearest}"
    if ppo.ptx and spec.data is None:
        yield f"spec.data: is required by {path}.ptx, which goes on pretraining; set spec.data.sources or remove ptx"


def reward_problems(settings: OnlineRl, path: str) -> Iterator[str]:
    for index, reward in enumerate(settings.rewards):
        yield from exactly_one(f"{path}.rewards[{index}]", reward, "model", "function")


def vllm_problems(spec: LLMTrainingSpec, stage: Stage, settings: OnlineRl, path: str) -> Iterator[str]:
    if settings.vllm is None:
        return
    resources = resources_of(spec, stage)
    if not resources.gpus:
        yield (
            f"{path}.vllm: shares the training's GPUs, and the pods of stage {stage.name!r} have none; "
            f"remove vllm or set resources.limits[{resources.gpu_resource}]"
        )
        return
    size, world = settings.vllm.tensor_parallel_size, world_size(spec, stage)
    if world % size:
        yield f"{path}.vllm.tensorParallelSize: {size} does not divide the {world} processes; use a divisor"


def process_problems(spec: LLMTrainingSpec, stage: Stage, path: str) -> Iterator[str]:
    if stage.resources:
        yield from resource_problems(stage.resources, f"{path}.resources")
    gpus = resources_of(spec, stage).gpus
    if spec.processes_per_node and gpus and spec.processes_per_node != gpus:
        yield (
            f"spec.processesPerNode: {spec.processes_per_node} contradicts the {gpus} GPUs of a pod of stage "
            f"{stage.name!r}; leave it out, one process per GPU follows"
        )


def memory_problems(spec: LLMTrainingSpec, index: int, stage: Stage, path: str) -> Iterator[str]:
    """A stage that can't fit, as far as the spec tells the sizes: of the model and of a GPU."""
    if spec.gpu_memory is None or not resources_of(spec, stage).gpus:
        return
    available, memory = bytes_of(spec.gpu_memory), stage_memory(spec, index)
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


# --- LLMServing --------------------------------------------------------------------------------------------------


def serving_problems(spec: LLMServingSpec) -> Iterator[str]:
    yield from exactly_one("spec.model", spec.model, "training", "uri")
    yield from uri_problems("spec.model.uri", spec.model.uri)
    yield from resource_problems(spec.resources, "spec.resources")
    for name, count in Counter(adapter.name for adapter in spec.adapters).items():
        if count > 1:
            yield f"spec.adapters: {count} adapters are named {name!r}; give each its own name"
    for index, adapter in enumerate(spec.adapters):
        yield from served_adapter_problems(spec, adapter, f"spec.adapters[{index}]")
    yield from parallel_problems(spec.resources.gpus, spec.extra_arguments)
    yield from answer_problems(spec)
    yield from environment_problems(spec)
    yield from serving_pod_problems(spec)


def served_adapter_problems(spec: LLMServingSpec, adapter: Adapter, path: str) -> Iterator[str]:
    yield from exactly_one(path, adapter, "training", "uri")
    yield from uri_problems(f"{path}.uri", adapter.uri)
    if adapter.rank is not None and adapter.uri is None:
        yield f"{path}.rank: is that of the stage; leave it out with training"
    if adapter.name == spec.served_model_name:
        yield f"spec.adapters: an adapter can't have the model's name {adapter.name!r}; rename it"
