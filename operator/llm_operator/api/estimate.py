"""What a process of a stage takes at its peak, and a pod of host memory: an estimate, each term by name. Pure.

Weights, gradients and optimizer state are exact (memory.py), activations counted (activations.py); buffers follow from
DeepSpeed's defaults. tests/trainer/test_memory.py compares the whole with what a step takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from llm_operator.api.activations import Activations, Arithmetic, activations, kernel_of, layers_of
from llm_operator.api.families import ModelSize
from llm_operator.api.memory import StageMemory, stage_memory, training_size
from llm_operator.api.quantities import bytes_of, quantity_of
from llm_operator.api.resolve import processes_per_node, resources_of
from llm_operator.api.training import LLMTrainingSpec
from llm_trainer.config import (
    Architecture,
    Dpo,
    OnlineRl,
    Ppo,
    Pretrain,
    RewardModel,
    TrainingSettings,
    settings_of,
)

GIB = 2**30
TILE = 2**27  # logits at a time: models/language_loss.py
LOGIT = 12  # bytes, where all are held: as the model gives them, in float32, and their gradients
TILED_LOGIT = 8
BUCKET = 500_000_000  # elements that DeepSpeed reduces at a time, at most: models/engine_config.py
LIVE = 1_000_000_000  # parameters that ZeRO 3 leaves gathered at most
ADAPTER = 18  # bytes per parameter that learns: weight, gradient, optimizer state
RUNTIME = {"cpu": GIB * 9 // 10, "gpu": GIB * 3 // 2}  # of a process: libraries; CUDA's context and NCCL's buffers
HOST_RUNTIME = 4 * GIB  # of a process with a GPU: libraries, CUDA's own, pinned buffers


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes. ``terms``: of a process at its peak, by name; ``host``: RAM of a pod, with its checkpoint's snapshot."""

    terms: Mapping[str, int]
    moment: str  # of the peak
    host: int
    made_again: bool = False  # activation checkpointing

    @property
    def remedy(self) -> str:
        """For a process that takes too much: by what is the most."""
        if max(self.terms, key=lambda name: self.terms[name]) not in ("activations", "logits"):
            return "use a higher zeroStage or more nodes"
        return "lower microBatchSize" if self.made_again else "set activationCheckpointing, or lower microBatchSize"

    @property
    def per_process(self) -> int:
        return sum(self.terms.values())

    def __str__(self) -> str:
        return ", ".join(f"{name} {quantity_of(size)}" for name, size in self.terms.items() if size)


@dataclass(frozen=True)
class Pass:
    """What goes through a model at once, in one process."""

    tokens: float
    accumulated: bool  # gradients of a micro-batch before are there
    made_again: bool  # activation checkpointing
    tiled: bool  # the loss never holds all logits
    gpu: bool


def stage_estimate(spec: LLMTrainingSpec, index: int) -> MemoryEstimate | None:
    """None where the spec alone does not tell how large one of the models is, or what its layers are."""
    stage = spec.stages[index]
    settings, size, memory = settings_of(stage), training_size(spec), stage_memory(spec, index)
    architecture = spec.model.architecture
    if settings is None or size is None or memory is None or architecture is None:
        return None
    gpu = resources_of(spec, stage).gpus > 0
    how = arithmetic(architecture, settings, gpu=gpu)
    once = passing(settings, memory, gpu=gpu)
    kept = activations(architecture, how, once.tokens, settings.length, memory.tensor_parallel)
    train = spec.tokenizer.train if spec.tokenizer else None
    if kept is None or train is None:
        return None
    terms, moment = peak(moments(architecture, settings, size, memory, how, once, kept, train.vocabulary_size))
    host = host_memory(terms, memory, processes_per_node(spec, stage), gpu=gpu)
    return MemoryEstimate(terms, moment, host, once.made_again)


def arithmetic(architecture: Architecture, settings: TrainingSettings, *, gpu: bool) -> Arithmetic:
    """``auto`` on CPU: float32, which takes more; whether the CPU has bfloat16 is known in the pod."""
    half = settings.precision == "bfloat16" or (gpu and settings.precision == "auto")
    return Arithmetic(half, gpu, kernel_of(architecture, half=half, gpu=gpu))


def passing(settings: TrainingSettings, memory: StageMemory, *, gpu: bool) -> Pass:
    rows = settings.micro_batch_size * (2 if isinstance(settings, (RewardModel, Dpo)) else 1)  # both answers at once
    shards = (getattr(settings, "sequence_parallel", 1) or 1) * memory.tensor_parallel
    replicas = max(1, memory.processes // shards)
    return Pass(
        tokens=rows * settings.length / (getattr(settings, "sequence_parallel", 1) or 1),
        accumulated=settings.global_batch_size > settings.micro_batch_size * replicas,
        made_again=makes_again(settings, gpu=gpu),
        tiled=not getattr(settings, "loss_function", None),  # ours and TRL's do; a user's is given all logits
        gpu=gpu,
    )


def makes_again(settings: TrainingSettings, *, gpu: bool) -> bool:
    """The stage's own word; else TRL's trainers make activations again on a GPU, our loops keep them."""
    if asked := getattr(settings, "checkpoints_activations", None):
        return bool(asked("cuda" if gpu else "cpu"))
    return gpu and not isinstance(settings, (Pretrain, Ppo))


def moments(
    architecture: Architecture, settings: TrainingSettings, size: ModelSize, memory: StageMemory, how: Arithmetic,
    once: Pass, kept: Activations, vocabulary: int,
) -> dict[str, dict[str, int]]:  # fmt: skip
    """The terms at each moment at which a step may take most."""
    held = memory.terms
    always = {"weights": held["weights"], "optimizer": held["optimizer"]}
    if settings.lora:
        always["adapter"] = ADAPTER * adapter_parameters(architecture, settings.lora.rank)
    if memory.zero_stage == 3:
        always["gathered"] = memory.weights * min(size.total, LIVE)
    runtime = {"runtime": RUNTIME["gpu" if once.gpu else "cpu"]}
    backward = {
        "gradients": held["gradients"] if once.accumulated else 0,  # else they come as activations go
        "activations": kept.kept(made_again=once.made_again) + cast_weights(size, how),
        "logits": 0 if isinstance(settings, RewardModel) else logits(once, size, vocabulary),
        "communication": communication(memory, learning(architecture, settings, memory)) if once.gpu else 0,
    }
    update = {"gradients": held["gradients"], "update": gradient_shard(memory)}
    found = {"the backward pass": {**always, **backward, **runtime}, "the update": {**always, **update, **runtime}}
    if isinstance(settings, OnlineRl) and not settings.vllm:
        rows = (settings.rollout_size if isinstance(settings, Ppo) else settings.global_batch_size) / memory.processes
        whole = memory.weights * (size.total if memory.zero_stage == 3 else 0)
        cache = round(rows * settings.length * how.item * cached_elements(architecture))
        found["the rollouts"] = {**always, "gathered": whole, "cache": cache, **runtime}
    return found


def peak(found: Mapping[str, Mapping[str, int]]) -> tuple[dict[str, int], str]:
    moment = max(found, key=lambda name: sum(found[name].values()))
    return {name: size for name, size in found[moment].items() if size}, moment


def logits(once: Pass, size: ModelSize, vocabulary: int) -> int:
    """With the gradient of the output's matrix, which the loss makes at once, in float32."""
    if once.tiled:
        return round(TILED_LOGIT * min(once.tokens * vocabulary, TILE)) + 4 * vocabulary * size.width
    return round(LOGIT * once.tokens * vocabulary)


def cast_weights(size: ModelSize, how: Arithmetic) -> int:
    """Autocast's copies on CPU, which the backward pass reads."""
    return 2 * (size.total - size.embedding) if how.half and not how.gpu else 0


def learning(architecture: Architecture, settings: TrainingSettings, memory: StageMemory) -> list[int]:
    """Parameters of each model that learns; of one with an adapter the adapter's."""
    if settings.lora:
        return [adapter_parameters(architecture, settings.lora.rank)]
    return [model.parameters for model in memory.models if model.learns]


def communication(memory: StageMemory, parameters: Sequence[int]) -> int:
    """The buckets in which DeepSpeed gathers a model's gradients on a GPU: two for overlap, of ZeRO 3 one."""
    buckets = {0: 0, 3: 1}.get(memory.zero_stage, 2)
    return buckets * memory.gradients * sum(min(BUCKET, learn) for learn in parameters)


def gradient_shard(memory: StageMemory) -> int:
    """ZeRO's optimizer steps on one flat copy of its own part."""
    learns = sum(model.parameters for model in memory.models if model.learns)
    return 4 * learns // memory.processes if memory.zero_stage else 0


def adapter_parameters(architecture: Architecture, rank: int) -> int:
    """Roughly what goes into and out of a layer's products, times the rank."""
    return rank * sum(layer.count * (layer.norms + layer.inputs + layer.shared) for layer in layers_of(architecture))


def cached_elements(architecture: Architecture) -> int:
    """Of a token that was written: keys and values of each layer that attends."""
    return sum(layer.count * layer.shared for layer in layers_of(architecture))


def host_memory(terms: Mapping[str, int], memory: StageMemory, processes: int, *, gpu: bool) -> int:
    """Of a pod. A checkpoint is copied to memory first: each process its part of the state, one of them the weights."""
    held = memory.terms
    state, weights = held["optimizer"], held["weights"]
    snapshot = processes * (state + weights) if memory.zero_stage == 3 else processes * state + weights
    return processes * (HOST_RUNTIME if gpu else sum(terms.values())) + snapshot


# --- what is told of it --------------------------------------------------------------------------------------------


def memory_warnings(spec: LLMTrainingSpec) -> Iterator[str]:
    """Of stages that fit by what is certain, but not by the estimate: nothing is refused for it."""
    for index, stage in enumerate(spec.stages):
        resources = resources_of(spec, stage)
        limit = resources.limits.get("memory")
        compared = limit or (spec.gpu_memory and resources.gpus)  # a pass of the operator makes no figure in vain
        estimate = stage_estimate(spec, index) if compared else None
        if estimate is None:
            continue
        if spec.gpu_memory and resources.gpus and estimate.per_process > bytes_of(spec.gpu_memory):
            yield (
                f"spec.stages[{index}] may not fit: {quantity_of(estimate.per_process)} of each GPU are estimated in "
                f"{estimate.moment} ({estimate}), above spec.gpuMemory {spec.gpu_memory}; {estimate.remedy}"
            )
        if limit and estimate.host > bytes_of(limit):
            yield (
                f"spec.stages[{index}] may not fit: {quantity_of(estimate.host)} of memory are estimated for a pod, "
                f"above its limit {limit}; raise resources.limits.memory, or use more nodes"
            )
