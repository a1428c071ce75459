"""What must hold of a pretrain stage's `tune` beyond its types."""

from __future__ import annotations

from collections.abc import Iterator

from llm_operator.api.resolve import stage_model
from llm_operator.api.training import LLMTrainingSpec, Stage
from llm_trainer.config import WIDTH_FAMILIES, Pretrain

TIED = ("gpt2",)  # of WIDTH_FAMILIES: those whose output is the embeddings' matrix unless it is told otherwise


def tune_problems(spec: LLMTrainingSpec, stage: Stage, pretrain: Pretrain, path: str) -> Iterator[str]:
    """`path`: of the stage."""
    tune, here = pretrain.tune, f"{path}.pretrain.tune"
    if tune is None:
        return
    if (asked := tune.learning_rate) and asked.minimum >= asked.maximum:
        yield f"{here}.learningRate.minimum: {asked.minimum:g} must be less than maximum, {asked.maximum:g}"
    if (sizes := tune.micro_batch_size) and sizes.maximum and sizes.maximum < pretrain.micro_batch_size:
        yield (
            f"{here}.microBatchSize.maximum: {sizes.maximum} must not be less than microBatchSize, "
            f"{pretrain.micro_batch_size}, from which on it is tried"
        )
    if tune.base_width is not None:
        yield from width_problems(spec, stage, pretrain, f"{here}.baseWidth")


def width_problems(spec: LLMTrainingSpec, stage: Stage, pretrain: Pretrain, path: str) -> Iterator[str]:
    optimizer = pretrain.optimizer
    if optimizer.type != "adamw" or optimizer.function or pretrain.lora:
        yield f"{path}: is for AdamW and all weights; remove it, or optimizer.type: muon, optimizer.function and lora"
    architecture = spec.model.architecture
    if architecture is None or not is_from_scratch(spec, stage):
        yield (
            f"{path}: is for a model from scratch, as one by a URI has been made with other first weights; remove it, "
            "and set optimizer.learningRate"
        )
        return
    if architecture.function:
        yield f"{path}: spec.model.architecture.function makes the first weights, which would be scaled; remove one"
    family = architecture.family
    if family not in WIDTH_FAMILIES:
        yield (
            f"{path}: how rates scale with width is not known of the family {family}; remove it, or use one of "
            f"{', '.join(WIDTH_FAMILIES)}"
        )
    elif architecture.config.get("tie_word_embeddings", family in TIED):
        yield (
            f"{path}: output and embeddings are one matrix and would need two rates; set "
            "spec.model.architecture.config.tie_word_embeddings: false"
        )


def is_from_scratch(spec: LLMTrainingSpec, stage: Stage) -> bool:
    """Whether the stage starts from the model of the spec's architecture, perhaps by way of other stages."""
    names = [each.name for each in spec.stages]
    index = names.index(stage.name)
    while (source := stage_model(spec, index)) is not None:
        if source.uri or source.stage not in names[:index]:
            return False
        index = names.index(source.stage)
    return True
