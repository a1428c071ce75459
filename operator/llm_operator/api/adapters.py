"""What must hold of a stage's `lora`, and of a stage that starts from an adapter. Pure, part of ``validation``."""

from __future__ import annotations

from collections.abc import Iterator

from llm_operator.api.families import FAMILIES
from llm_operator.api.resolve import resources_of, stage_model
from llm_operator.api.training import LLMTrainingSpec, Stage
from llm_trainer.config import KINDS, Lora, StageModel, TrainingSettings, kind_of, settings_of

OWN_LOOPS = ("pretrain", "ppo")  # they move the weights between devices and precisions by themselves


def adapter_problems(spec: LLMTrainingSpec, index: int, settings: TrainingSettings, path: str) -> Iterator[str]:
    """``path``: of the stage."""
    stage = spec.stages[index]
    start = stage_model(spec, index)
    adapter = adapter_stage(spec, start)
    if adapter and settings.yields == "rewardModel":
        yield f"{path}.model: stage {adapter!r} is an adapter, which no reward model can start from; {merge(adapter)}"
    kind = KINDS[kind_of(stage)]
    for field, model, _ in settings.references():
        if name := adapter_stage(spec, model):
            where = f"{path}.{kind}.{field}.stage"
            yield f"{where}: stage {name!r} is an adapter, which alone scores nothing; {merge(name)}"
    if settings.lora is None:
        return
    where = f"{path}.lora"
    if start is None and spec.model.architecture:
        yield f"{where}: a model from scratch has no weights to adapt; remove it, or start from another stage or uri"
    if adapter and settings.yields != "rewardModel":
        yield from continued_problems(spec, adapter, settings.lora, where)
    yield from expert_problems(spec, settings.lora, where)
    yield from quantization_problems(spec, stage, settings, where)


def continued_problems(spec: LLMTrainingSpec, adapter: str, lora: Lora, path: str) -> Iterator[str]:
    """A stage that starts from an adapter trains another on top; both are published as one, of the sum of the ranks."""
    before = next(settings.lora for stage in spec.stages if stage.name == adapter and (settings := settings_of(stage)))
    if before is None:
        return
    for name in ("dora", "experts", "quantization"):
        if getattr(before, name) or getattr(lora, name):
            yield f"{path}.{name}: an adapter can't go on with that of stage {adapter!r} with it; {merge(adapter)}"
    if sorted(before.target_modules) != sorted(lora.target_modules):
        yield (
            f"{path}.targetModules: stage {adapter!r}, with whose adapter this one goes on, has "
            f"{before.target_modules or 'the default'} and not {lora.target_modules or 'the default'}; "
            f"use the same, or {merge(adapter)}"
        )


def merge(name: str) -> str:
    return f"set lora.merge in stage {name!r}"


def adapter_stage(spec: LLMTrainingSpec, model: StageModel | None) -> str | None:
    """The stage's name if what it yields is an adapter alone."""
    named = next((stage for stage in spec.stages if model and stage.name == model.stage), None)
    settings = settings_of(named) if named else None
    return named.name if named and settings and settings.lora and not settings.lora.merge else None


def expert_problems(spec: LLMTrainingSpec, lora: Lora, path: str) -> Iterator[str]:
    if not lora.experts:
        return
    architecture = spec.model.architecture
    family = FAMILIES.get(architecture.family) if architecture else None
    if architecture and family and not any("experts" in key for key in family.defaults):
        yield f"{path}.experts: family {architecture.family} has no experts; remove it"
    if lora.dora:
        yield f"{path}.dora: can't be used on the stacked weights of experts; remove dora, or experts"
    if lora.dropout:
        yield f"{path}.dropout: {lora.dropout} can't be used on the stacked weights of experts; set 0 or remove experts"


def quantization_problems(spec: LLMTrainingSpec, stage: Stage, settings: TrainingSettings, path: str) -> Iterator[str]:
    if settings.lora is None or settings.lora.quantization is None:
        return
    where, kind = f"{path}.quantization", KINDS[kind_of(stage)]
    if not resources_of(spec, stage).gpus:
        yield f"{where}: nf4 needs CUDA, and the pods of stage {stage.name!r} have no GPU; remove it or ask for GPUs"
    if settings.zero_stage == 3:
        yield f"{where}: ZeRO-3 can't spread nf4 weights; set {path.removesuffix('.lora')}.zeroStage to 2 or less"
    if kind in OWN_LOOPS:
        yield f"{where}: a {kind} stage can't hold nf4 weights; remove it"
    if settings.lora.experts:
        yield f"{where}: bitsandbytes leaves the stacked weights of experts as they are; remove experts, or nf4"
