"""``python -m llm_operator plan FILE``: what an LLMTraining would do, told without a cluster."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from llm_operator.api.families import ModelSize, memory_per_process, model_size
from llm_operator.api.resolve import nodes_of, processes_per_node, stage_model, world_size
from llm_operator.api.training import LLMTrainingSpec, Stage
from llm_operator.api.validation import InvalidSpecError, load_training
from llm_trainer.config import KINDS, kind_of, settings_of


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
    size = size_of(spec)
    yield f"LLMTraining {manifest['metadata']['name']}: {len(spec.stages)} stages after data preparation"
    yield f"  model      {describe_model(spec, size)}"
    for index, stage in enumerate(spec.stages):
        yield from describe_stage(spec, index, stage, size)


def size_of(spec: LLMTrainingSpec) -> ModelSize | None:
    """None where the spec alone does not tell it: an existing model, or a tokenizer of unknown size."""
    train = spec.tokenizer.train if spec.tokenizer else None
    if spec.model.architecture is None or train is None:
        return None
    return model_size(spec.model.architecture, train.vocabulary_size)


def describe_model(spec: LLMTrainingSpec, size: ModelSize | None) -> str:
    if spec.model.architecture is None:
        return f"{spec.model.uri}, whose size the file does not tell"
    if size is None:
        return f"{spec.model.architecture.family}, whose size depends on the tokenizer's vocabulary"
    active = "" if size.active == size.total else f", {count(size.active)} of them used by a token"
    return f"{spec.model.architecture.family} from scratch, {count(size.total)} parameters{active}"


def describe_stage(spec: LLMTrainingSpec, index: int, stage: Stage, size: ModelSize | None) -> Iterator[str]:
    settings = settings_of(stage)
    assert settings  # noqa: S101 -- the spec is valid
    processes = world_size(spec, stage)
    source = stage_model(spec, index)
    start = "from scratch" if source is None else f"from {source.stage or source.uri}"
    adapter = ", a low-rank adapter" if settings.lora else ""
    yield f"  {stage.name:10} {KINDS[kind_of(stage)]} {start}{adapter}"
    pods = f"{nodes_of(spec, stage)} pods × {processes_per_node(spec, stage)} processes"
    accumulation = settings.global_batch_size // (settings.micro_batch_size * processes)
    yield (
        f"    pods     {pods}, ZeRO {settings.zero_stage}\n"
        f"    batch    {settings.global_batch_size} = {settings.micro_batch_size} × {processes} processes × "
        f"{accumulation} accumulated, of up to {settings.length} tokens"
    )
    if stage.pretrain:
        per_step = settings.global_batch_size * settings.length
        steps = stage.pretrain.steps or math.ceil((stage.pretrain.tokens or 0) / per_step)
        yield f"    tokens   {count(steps * per_step)} in {steps:,} steps of {per_step:,}"
        if size:
            flops = size.training_flops_per_token(settings.length)
            yield f"    work     {count(flops)}FLOPs per token, {count(flops * steps * per_step)}FLOPs in all"
    if size and not adapter:
        memory = memory_per_process(size.total, settings.zero_stage, processes)
        yield f"    memory   {count(memory)}B per process in bfloat16 with AdamW; activations come on top"


def count(number: float) -> str:
    """With three digits and a unit, such as 6.49 M."""
    for unit in ("", "K", "M", "G", "T", "P", "E"):
        if number < 1000 or unit == "E":
            return f"{number:.3g} {unit}".rstrip() if unit else f"{number:.3g}"
        number /= 1000
    raise AssertionError
