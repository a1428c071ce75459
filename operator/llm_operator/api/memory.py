"""What a process of a stage must hold: weights, gradients and optimizer state of its models. Pure.

Activations, buffers and the adapter's own weights come on top: a stage that needs more than this can't run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from llm_operator.api.families import ModelSize, model_size
from llm_operator.api.resolve import resources_of, stage_model, world_size
from llm_operator.api.training import LLMTrainingSpec
from llm_trainer.config import (
    Grpo,
    OnlineRl,
    Ppo,
    RewardModel,
    StageModel,
    TrainingSettings,
    settings_of,
)


@dataclass(frozen=True)
class HeldModel:
    """One of a stage's models: so many parameters, all of which learn or none. ``routed``: those of its experts."""

    parameters: int
    routed: int
    learns: bool


@dataclass(frozen=True)
class StageMemory:
    """``weights``, ``gradients`` and ``state``: bytes per parameter."""

    models: tuple[HeldModel, ...]
    weights: int
    gradients: int
    state: int
    zero_stage: int
    processes: int
    expert_parallel: int = 1

    @property
    def per_process(self) -> int:
        """Bytes.

        ZeRO (Rajbhandari et al. 2020), section 3 and figure 1: stages 1, 2 and 3 spread the optimizer's state, the
        gradients and the weights over the processes. Experts are spread over ``expert_parallel`` of them before.
        """
        total = 0.0
        for model in self.models:
            whole = model.parameters - model.routed + model.routed / self.expert_parallel
            for size, stage, learning in (
                (self.state, 1, True), (self.gradients, 2, True), (self.weights, 3, False),
            ):  # fmt: skip
                if model.learns or not learning:
                    total += size * (model.parameters / self.processes if self.zero_stage >= stage else whole)
        return round(total)

    def fitting_zero_stage(self, memory: int) -> int | None:
        """The lowest ZeRO stage that takes at most so many bytes; None if there is none."""
        stages = (stage for stage in range(4) if replace(self, zero_stage=stage).per_process <= memory)
        return next(stages, None)

    def fitting_processes(self, memory: int) -> int | None:
        """The least number of processes, by doubling, with which ZeRO 3 takes at most so many bytes."""
        counts = (self.processes << doubled for doubled in range(1, 12))
        spread = (n for n in counts if replace(self, zero_stage=3, processes=n).per_process <= memory)
        return next(spread, None)


def training_size(spec: LLMTrainingSpec) -> ModelSize | None:
    """Of the model from scratch; None where the spec alone does not tell: an existing model or tokenizer."""
    train = spec.tokenizer.train if spec.tokenizer else None
    if spec.model.architecture is None or train is None:
        return None
    return model_size(spec.model.architecture, train.vocabulary_size)


def stage_memory(spec: LLMTrainingSpec, index: int) -> StageMemory | None:
    """None where the spec alone does not tell how large one of the models is."""
    settings, size = settings_of(spec.stages[index]), training_size(spec)
    models = [stage_model(spec, index), *(reference.model for reference in settings.references())] if settings else []
    if settings is None or size is None or not all(is_of_the_training(spec, model) for model in models):
        return None
    mixed = settings.precision != "float32" and resources_of(spec, spec.stages[index]).gpus > 0
    moments = 4 if settings.optimizer.type == "muon" else 8
    return StageMemory(
        models=tuple(held_models(settings, size)),
        weights=2 if mixed else 4,
        gradients=4,  # in float32 also for weights in bfloat16
        state=moments + (4 if mixed else 0),  # and a copy of the weights in float32
        zero_stage=max(1, settings.zero_stage) if mixed else settings.zero_stage,  # as the trainer asks DeepSpeed for
        processes=world_size(spec, spec.stages[index]),
        expert_parallel=getattr(settings, "expert_parallel", 1),
    )


def stage_flops_per_token(spec: LLMTrainingSpec, index: int) -> int | None:
    """Of training on the longest row; None where the spec does not tell it, or where the stage does more than train."""
    settings, size = settings_of(spec.stages[index]), training_size(spec)
    if settings is None or size is None or settings.lora or isinstance(settings, OnlineRl):
        return None
    known = is_of_the_training(spec, stage_model(spec, index))
    return round(size.training_flops_per_token(settings.length)) if known else None


def is_of_the_training(spec: LLMTrainingSpec, model: StageModel | None) -> bool:
    """Whether it is spec.model's architecture, or comes from it through other stages."""
    seen: set[str] = set()
    while model is not None and model.stage is not None and model.stage not in seen:
        seen.add(model.stage)
        indices = [index for index, stage in enumerate(spec.stages) if stage.name == model.stage]
        if not indices:
            return False
        model = stage_model(spec, indices[0])
    return model is None


def held_models(settings: TrainingSettings, size: ModelSize) -> Iterator[HeldModel]:
    """Those on a process at the same time."""
    learns = settings.lora is None
    policy = HeldModel(size.total, size.routed, learns)
    scorer = HeldModel(size.scoring, size.routed, learns)
    yield scorer if isinstance(settings, RewardModel) else policy
    if isinstance(settings, Ppo):
        yield scorer
    # DPO and KTO ask the reference before they train; that of a low-rank adapter is its base
    if learns and (isinstance(settings, Ppo) or (isinstance(settings, Grpo) and settings.beta)):
        yield replace(policy, learns=False)
    if isinstance(settings, OnlineRl):
        yield from (replace(scorer, learns=False) for reward in settings.rewards if reward.model)
