"""``python -m llm_operator plan FILE``: what an LLMTraining would do, told without a cluster."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from llm_operator.api.families import ModelSize
from llm_operator.api.memory import stage_flops_per_token, stage_memory, training_size
from llm_operator.api.quantities import quantity_of
from llm_operator.api.resolve import nodes_of, processes_per_node, resources_of, stage_model, world_size
from llm_operator.api.training import LLMTrainingSpec, Stage
from llm_operator.api.validation import InvalidSpecError, load_training
from llm_trainer.config import (
    KINDS,
    TOKENS_PER_SHARD,
    FineTuning,
    Pretrain,
    TrainingSettings,
    kind_of,
    settings_of,
)


def main(files: list[str]) -> int:
    """Prints every LLMTraining of the files; 1 if one of them can't work, 2 if there is none."""
    wrong = found = 0
    for file in files:
        for manifest in yaml.safe_load_all(Path(file).read_text()):
            if not manifest or manifest.get("kind") != "LLMTraining":
                continue
            found += 1
            try:
                lines = list(describe(manifest))
            except InvalidSpecError as error:
                wrong += 1
                lines = [f"{manifest['metadata']['name']} can't work:", *(f"  {line}" for line in error.problems)]
            print("\n".join(lines))
    if not found:
        print(f"no LLMTraining in {', '.join(files) or 'nothing'}; name a file that holds one", file=sys.stderr)
        return 2
    return int(wrong > 0)


def describe(manifest: dict[str, Any]) -> Iterator[str]:
    """Raises InvalidSpecError."""
    spec = load_training(manifest["spec"])
    size = training_size(spec)
    yield f"LLMTraining {manifest['metadata']['name']}: {len(spec.stages)} stages after data preparation"
    yield f"  model      {describe_model(spec, size)}"
    if spec.data:
        vocabulary = (
            f" by a tokenizer of {train.vocabulary_size:,} tokens"
            if (train := spec.tokenizer and spec.tokenizer.train)
            else ""
        )
        yield (
            f"  data       {len(spec.data.sources)} sources{vocabulary}, {spec.data.validation_fraction:.3g} of each "
            f"held out, in shards of {count(TOKENS_PER_SHARD)} tokens"
        )
    for index, stage in enumerate(spec.stages):
        yield from describe_stage(spec, index, stage)


def describe_model(spec: LLMTrainingSpec, size: ModelSize | None) -> str:
    if spec.model.architecture is None:
        return f"{spec.model.uri}, whose size the file does not tell"
    if size is None:
        return f"{spec.model.architecture.family}, whose size depends on the tokenizer's vocabulary"
    active = "" if size.active == size.total else f", {count(size.active)} of them used by a token"
    return f"{spec.model.architecture.family} from scratch, {count(size.total)} parameters{active}"


def describe_stage(spec: LLMTrainingSpec, index: int, stage: Stage) -> Iterator[str]:
    settings = settings_of(stage)
    assert settings  # noqa: S101 -- the spec is valid
    processes = world_size(spec, stage)
    source = stage_model(spec, index)
    start = "from scratch" if source is None else f"from {source.stage or source.uri}"
    adapter = ", a low-rank adapter" if settings.lora else ""
    yield f"  {stage.name:10} {KINDS[kind_of(stage)]} {start}{adapter}"
    pods = f"{nodes_of(spec, stage)} pods × {processes_per_node(spec, stage)} processes"
    accumulation = settings.global_batch_size // (settings.micro_batch_size * processes)
    yield f"    pods     {pods}, ZeRO {settings.zero_stage}: {describe_sharding(settings, processes)}"
    yield (
        f"    batch    {settings.global_batch_size} = {settings.micro_batch_size} × {processes} processes × "
        f"{accumulation} accumulated, of up to {settings.length} tokens"
    )
    yield from describe_steps(settings, stage_flops_per_token(spec, index))
    if memory := stage_memory(spec, index):
        of = f" of {spec.gpu_memory}" if spec.gpu_memory and resources_of(spec, stage).gpus else ""
        held = "the base's weights; the adapter" if settings.lora else "weights, gradients and optimizer state; buffers"
        yield f"    memory   {quantity_of(memory.per_process)}{of} per process for {held} and activations come on top"


def describe_sharding(settings: TrainingSettings, processes: int) -> str:
    """What ZeRO spreads, and into how many shards."""
    parts = ("optimizer state", "gradients", "weights")[: settings.zero_stage]
    return f"{' and '.join(parts)} in {processes} shards" if parts else "nothing is sharded"


def describe_steps(settings: TrainingSettings, flops: int | None) -> Iterator[str]:
    """Of a pretrain stage; those of the others follow from the rows of their datasets."""
    if isinstance(settings, Pretrain):
        per_step = settings.global_batch_size * settings.length
        steps = settings.steps or math.ceil((settings.tokens or 0) / per_step)
        yield f"    tokens   {count(steps * per_step)} in {steps:,} steps of {per_step:,}"
        if flops:
            yield f"    work     {count(flops)}FLOPs per token, {count(flops * steps * per_step)}FLOPs in all"
    elif isinstance(settings, FineTuning):
        yield f"    steps    rows of {settings.dataset.uri} × {settings.epochs:g} / {settings.rows_per_step}"


def count(number: float) -> str:
    """With three digits and a unit, such as 6.49 M."""
    for unit in ("", "K", "M", "G", "T", "P", "E", "Z"):
        if number < 1000 or unit == "Z":
            return f"{number:.3g} {unit}".rstrip() if unit else f"{number:.3g}"
        number /= 1000
    raise AssertionError
