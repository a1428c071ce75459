"""Processes that share rows or layers: what must hold of a stage's sequenceParallel and tensorParallel. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from llm_operator.api.families import FAMILIES
from llm_operator.api.memory import origin_of
from llm_operator.api.resolve import processes_per_node, stage_model, world_size
from llm_operator.api.training import LLMTrainingSpec, Stage
from llm_trainer.config import (
    SEQUENCE_PARALLEL_FAMILIES,
    TENSOR_PARALLEL_FAMILIES,
    Architecture,
    Pretrain,
    Sft,
    TrainingSettings,
)

BALANCED = ("mixtral", "qwen3_moe")  # families whose experts have a load-balance loss in an sft stage
HEADS = ("num_attention_heads", "n_head")
FAMILIES_THAT_CAN = {
    "sequenceParallel": SEQUENCE_PARALLEL_FAMILIES,
    "tensorParallel": TENSOR_PARALLEL_FAMILIES,
}


def sharing_problems(spec: LLMTrainingSpec, index: int, settings: TrainingSettings, path: str) -> Iterator[str]:
    stage = spec.stages[index]
    asked = {name: size for name, size in settings.shared_work.items() if size > 1}
    if len(asked) > 1:
        yield f"{path}.tensorParallel: does not go with sequenceParallel {settings.sequence_parallel}; use one of them"
    for name, size in asked.items():
        here = f"{path}.{name}"
        if not isinstance(settings, Pretrain | Sft):
            yield f"{here}: is for pretrain and sft; leave it out"
        if (processes := world_size(spec, stage)) % size:
            yield f"{here}: the stage's {processes} processes are not divisible by {size}; use a divisor"
        if getattr(settings, "loss_function", None):
            yield f"{here}: {size} does not go with a lossFunction, which wants whole rows of logits; use 1"
        if getattr(settings, "expert_parallel", 1) > 1:
            yield f"{here}: {size} does not go with pretrain.expertParallel; use one of them"
        if (architecture := spec.model.architecture) and origin_of(spec, stage_model(spec, index)) is None:
            yield from family_problems(architecture, name, size, here)
    if settings.sequence_parallel > 1:
        yield from row_problems(spec, settings, path)
    if settings.tensor_parallel > 1:
        yield from layer_problems(spec, stage, settings, path)


def family_problems(architecture: Architecture, name: str, size: int, here: str) -> Iterator[str]:
    """Of the training's own architecture; what an existing model is, its stage finds out."""
    if architecture.family not in FAMILIES_THAT_CAN[name]:
        choices = ", ".join(FAMILIES_THAT_CAN[name])
        yield f"{here}: {size} is not for the family {architecture.family}; use 1, or one of {choices}"
        return
    keys = FAMILIES[architecture.family].resolve(architecture.config)
    heads = next((keys[key] for key in HEADS if keys.get(key)), 0)
    divided = {"attention heads": heads}
    if name == "tensorParallel":
        shared = architecture.config.get("num_key_value_heads") or keys.get("num_key_value_heads") or heads
        divided |= {"heads of keys": shared, "intermediate_size": keys.get("intermediate_size")}
    for what, count in divided.items():
        if isinstance(count, int) and count % size:
            yield f"{here}: the model's {count} {what} are not divisible by {size}; use a divisor"


def row_problems(spec: LLMTrainingSpec, settings: TrainingSettings, path: str) -> Iterator[str]:
    size = settings.sequence_parallel
    architecture = spec.model.architecture
    balanced = architecture is not None and architecture.family in BALANCED
    if isinstance(settings, Sft) and balanced and settings.router_aux_loss_coef != 0:
        yield (
            f"{path}.sft.routerAuxLossCoef: the experts' load-balance loss, which is on by default, does not go with "
            f"sequenceParallel {size} in an sft stage; set it to 0"
        )
    if isinstance(settings, Pretrain) and settings.sequence_length % size:
        nearest = -(-settings.sequence_length // size) * size
        yield (
            f"{path}.pretrain.sequenceLength: {settings.sequence_length} is not divisible by sequenceParallel {size}; "
            f"use {nearest}"
        )


def layer_problems(spec: LLMTrainingSpec, stage: Stage, settings: TrainingSettings, path: str) -> Iterator[str]:
    here, size, node = f"{path}.tensorParallel", settings.tensor_parallel, processes_per_node(spec, stage)
    if node % size and node > 1:
        yield (
            f"{here}: {size} does not divide the {node} processes of a pod, so that layers would lie on two nodes; use "
            "a divisor"
        )
    yield from spread_problems(settings, f"tensorParallel {size}", path)
    if settings.lora:
        yield f"{path}.lora: does not go with tensorParallel {size}; use 1"


def spread_problems(settings: TrainingSettings, shared: str, path: str) -> Iterator[str]:
    """Of a stage whose weights DeepSpeed spreads by itself: in which ZeRO and optimizer must leave them."""
    if settings.zero_stage not in (1, 2):
        yield f"{path}.zeroStage: {settings.zero_stage} does not go with {shared}; use 1 or 2"
    if settings.optimizer.type != "adamw":
        yield f"{path}.optimizer.type: {settings.optimizer.type} does not go with {shared}; use adamw"
    if settings.optimizer.function:
        yield f"{path}.optimizer.function: does not go with {shared}; leave it out"
