"""What only one kind of stage can have wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from llm_operator.api.architecture import experts_of
from llm_operator.api.mixture_validation import mixture_problems
from llm_operator.api.references import exactly_one
from llm_operator.api.resolve import resources_of, world_size
from llm_operator.api.sharing import spread_problems
from llm_operator.api.training import LLMTrainingSpec, Stage
from llm_operator.api.tune_validation import tune_problems
from llm_trainer.config import (
    EXPERT_PARALLEL_FAMILIES,
    KINDS,
    UNCOMPILED_FAMILIES,
    Dpo,
    Grpo,
    OnlineRl,
    Ppo,
    Pretrain,
    kind_of,
    settings_of,
)


def kind_problems(spec: LLMTrainingSpec, stage: Stage, path: str) -> Iterator[str]:
    """What only one kind of stage can have wrong."""
    here = f"{path}.{KINDS[kind_of(stage)]}"
    if pretrain := stage.pretrain:
        yield from exactly_one(here, pretrain, "steps", "tokens")
        if spec.data is None:
            yield f"spec.data: is required by the pretrain stage {stage.name!r}; set spec.data.sources"
        if (warmup := pretrain.schedule.warmup_steps) >= pretrain.total_steps > 0:
            yield f"{path}.schedule.warmupSteps: {warmup} leaves none of the {pretrain.total_steps} steps; lower it"
        yield from tune_problems(spec, stage, pretrain, path)
        yield from mixture_problems(pretrain, spec.data.sources if spec.data else [], f"{here}.mixture")
        if pretrain.expert_parallel > 1:
            yield from expert_parallel_problems(spec, stage, pretrain, path)
        if pretrain.compile:
            yield from compile_problems(spec, stage, pretrain, f"{here}.compile")
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
    yield from spread_problems(pretrain, f"expertParallel {size}", path)
    if architecture is None:
        return
    experts = experts_of(architecture)
    if architecture.family not in EXPERT_PARALLEL_FAMILIES:
        choices = ", ".join(EXPERT_PARALLEL_FAMILIES)
        yield f"{here}: {size} is not for the family {architecture.family}; use 1, or one of {choices}"
    elif experts % size:
        yield f"{here}: the model's {experts} experts are not divisible by {size}; use a divisor"


def compile_problems(spec: LLMTrainingSpec, stage: Stage, pretrain: Pretrain, path: str) -> Iterator[str]:
    """What an existing model is, its stage finds out."""
    if setting := pretrain.against_compiling():
        yield f"{path}: true does not go with {setting}; leave it out"
    architecture = spec.model.architecture if stage.model is None else None
    if architecture and architecture.family in UNCOMPILED_FAMILIES:
        yield f"{path}: true is not for {architecture.family}, because of its experts or its state; leave it out"


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
