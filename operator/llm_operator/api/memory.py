"""What a process of a stage must hold: weights, gradients and optimizer state of its models. Pure.

A stage that needs more than this can't run, so it is refused. What comes on top is estimated in estimate.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

NF4 = 0.5 + 1 / 64  # bytes of a weight, with its block's scale, quantised too (Dettmers et al. 2023, section 3)
# By URI, of the models that data preparation has looked at; by the empty one, of the model from scratch.
Sizes = Mapping[str, ModelSize]
NONE_TOLD: Sizes = {}


@dataclass(frozen=True)
class HeldModel:
    """One of a stage's models: so many parameters, all of which learn or none.

    ``routed``: those of its experts; ``quantized``: those that are held in four bits.
    """

    parameters: int
    routed: int
    learns: bool
    quantized: int = 0


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
    tensor_parallel: int = 1

    @property
    def per_process(self) -> int:
        """Bytes."""
        return sum(self.terms.values())

    @property
    def terms(self) -> dict[str, int]:
        """Bytes of weights, gradients and optimizer.

        ZeRO (Rajbhandari et al. 2020), section 3 and figure 1: stages 1, 2 and 3 spread the optimizer's state, the
        gradients and the weights over the processes. Experts are spread over ``expert_parallel`` of them before, and
        all over ``tensor_parallel``.
        """
        made = {"weights": 0.0, "gradients": 0.0, "optimizer": 0.0}
        for model in self.models:
            whole = model.parameters - model.routed + model.routed / self.expert_parallel
            for name, size, stage in (
                ("weights", self.weights, 3), ("gradients", self.gradients, 2), ("optimizer", self.state, 1),
            ):  # fmt: skip
                if not model.learns and name != "weights":
                    continue
                spread = self.zero_stage >= stage
                share = 1 / self.processes if spread else whole / model.parameters / self.tensor_parallel
                plain = model.parameters - (model.quantized if name == "weights" else 0)
                made[name] += share * (size * plain + NF4 * (model.parameters - plain))
        return {name: round(size) for name, size in made.items()}

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


def stage_memory(spec: LLMTrainingSpec, index: int, told: Sizes = NONE_TOLD) -> StageMemory | None:
    """None where neither the spec nor data preparation tells how large one of the models is."""
    settings, size = settings_of(spec.stages[index]), size_of(spec, stage_model(spec, index), told)
    if settings is None or size is None:
        return None
    others = {reference.field: size_of(spec, reference.model, told) for reference in settings.references()}
    named = {field: other for field, other in others.items() if other}
    if len(named) < len(others):
        return None
    mixed = settings.precision != "float32" and resources_of(spec, spec.stages[index]).gpus > 0
    moments = 4 if settings.optimizer.type == "muon" else 8
    zero_stage = max(1, settings.zero_stage) if mixed else settings.zero_stage  # as the trainer asks DeepSpeed for
    return StageMemory(
        models=tuple(held_models(settings, size, named)),
        weights=2 if mixed else 4,
        gradients=4,  # in float32 also for weights in bfloat16
        state=moments + (4 if zero_stage else 0),  # ZeRO keeps a copy in float32, also of weights that are
        zero_stage=zero_stage,
        processes=world_size(spec, spec.stages[index]),
        expert_parallel=getattr(settings, "expert_parallel", 1),
        tensor_parallel=getattr(settings, "tensor_parallel", 1) or 1,
    )


def stage_flops_per_token(spec: LLMTrainingSpec, index: int, told: Sizes = NONE_TOLD) -> int | None:
    """Of training on the longest row; None where nothing tells it, or where the stage does more than train."""
    settings, size = settings_of(spec.stages[index]), size_of(spec, stage_model(spec, index), told)
    if settings is None or size is None or settings.lora or isinstance(settings, OnlineRl):
        return None
    return round(size.training_flops_per_token(settings.length))


def size_of(spec: LLMTrainingSpec, model: StageModel | None, told: Sizes) -> ModelSize | None:
    """Of the model from which ``model`` comes."""
    origin = origin_of(spec, model)
    if origin is None:
        return training_size(spec) or told.get("")
    return told.get(origin.uri or "") if origin.stage is None else None


def origin_of(spec: LLMTrainingSpec, model: StageModel | None) -> StageModel | None:
    """What ``model`` comes from, perhaps through stages; None is ``spec.model``'s architecture.

    One that names a stage leads nowhere.
    """
    seen: set[str] = set()
    while model is not None and model.stage is not None and model.stage not in seen:
        seen.add(model.stage)
        indices = [index for index, stage in enumerate(spec.stages) if stage.name == model.stage]
        if not indices:
            return model
        model = stage_model(spec, indices[0])
    return model


def held_models(settings: TrainingSettings, size: ModelSize, named: Mapping[str, ModelSize]) -> Iterator[HeldModel]:
    """Those on a process at the same time. ``named``: sizes of the models that fields of the stage name."""
    lora = settings.lora
    learns, quantizes = lora is None, bool(lora and lora.quantization)
    policy = HeldModel(size.total, size.routed, learns, linear(size) if quantizes else 0)
    rewards = [reward for field, reward in named.items() if field != "critic"]
    critic = named.get("critic") or next(iter(rewards), size)  # which starts from the first reward model
    scorer = HeldModel(critic.scoring, critic.routed, learns, linear(critic) if quantizes else 0)
    yield scorer if isinstance(settings, RewardModel) else policy
    if isinstance(settings, Ppo):
        yield scorer
    # DPO and KTO ask the reference before they train; that of a low-rank adapter is its base
    if learns and (isinstance(settings, Ppo) or (isinstance(settings, Grpo) and settings.beta)):
        yield replace(policy, learns=False)
    if isinstance(settings, OnlineRl):
        yield from (HeldModel(reward.scoring, reward.routed, learns=False) for reward in rewards)


def linear(size: ModelSize) -> int:
    """Parameters that bitsandbytes quantises: no embeddings, no output, no experts, which are in one tensor."""
    return size.total - size.embedding - size.head - size.routed
