"""The stages after pretraining on a GPU, in bfloat16: that each learns what its test on CPU shows."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from llm_trainer.config import StageConfig, local_path
from llm_trainer.models.low_rank import merged
from tests.gpu.conftest import GpuStage, RunPods
from tests.trainer.online import assert_reward_rises
from tests.trainer.pods import evaluations, losses

BATCH = {"globalBatchSize": 8, "microBatchSize": 4, "checkpoint": {"everySteps": 10}, "evaluation": {"everySteps": 20}}
SFT = {
    **BATCH,
    "dataset": {"uri": "pvc://corpus/chat.jsonl", "validationFraction": 0.1},
    "epochs": 3,
    "maxLength": 128,
    "optimizer": {"learningRate": 1e-4},
}
PREFERENCE = {**BATCH, "epochs": 2, "maxLength": 64}
ONLINE: dict[str, Any] = {
    "maxPromptLength": 32,
    "maxCompletionLength": 4,
    "globalBatchSize": 64,
    "microBatchSize": 32,
    "schedule": {"type": "constant"},
    "evaluation": {"everySteps": 1000},
    "rewards": [{"function": "tests.trainer.reward_functions:early"}],
}


def first_and_last(config: StageConfig) -> tuple[dict[str, float], dict[str, float]]:
    figures = evaluations(config)
    return figures[0], figures[max(figures)]


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_sft(zero: int, base: str, stage: GpuStage, pods: RunPods, record_property: Any) -> None:
    config = stage(f"sft-{zero}", model={"uri": base}, sft={**SFT, "zeroStage": zero})
    progress = pods(config).run()
    first, last = first_and_last(config)
    record_property("seen", f"held-out loss: {first['loss']:.3f} to {last['loss']:.3f}")
    assert last["loss"] < first["loss"] - 0.1, (first, last)
    assert progress.result
    loads(config, progress.result.uri)


def loads(config: StageConfig, uri: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(local_path(uri, config.volumes_root))
    assert bool(torch.isfinite(model(input_ids=torch.arange(2, 60)[None]).logits).all())


def test_a_killed_sft_goes_on(base: str, stage: GpuStage, pods: RunPods, record_property: Any) -> None:
    settings = {**SFT, "checkpoint": {"everySteps": 5}}
    whole = stage("sft-whole", model={"uri": base}, sft=settings)
    pods(whole).run()
    first = pods(stage("sft-killed", model={"uri": base}, sft=settings)).start()
    first.until_step(7, saved=5)
    first.kill()
    second = stage("sft-killed", attempt=2, model={"uri": base}, sft=settings)
    pods(second).run()
    expected, made = losses(whole), losses(second)
    assert sorted(made) == sorted(expected)
    largest = max(abs(made[step] - expected[step]) for step in made)
    record_property("seen", f"largest difference of the losses: {largest:.1e}")
    assert largest < 0.05


@pytest.mark.parametrize("zero", [1, 3])
def test_reward_model_and_ppo(
    zero: int, base: str, pairs: str, prompts: str, stage: GpuStage, pods: RunPods, record_property: Any
) -> None:
    dataset = {"uri": pairs, "validationFraction": 0.2}
    settings = {**PREFERENCE, "dataset": dataset, "zeroStage": zero, "optimizer": {"learningRate": 3e-5}}
    taste = stage(f"taste-{zero}", model={"uri": base}, rewardModel=settings)
    result = pods(taste).run().result
    _, last = first_and_last(taste)
    assert last["accuracy"] >= 0.9, last
    assert result
    rewards = [*ONLINE["rewards"], {"model": {"uri": result.uri}, "weight": 0.01}]
    written = {
        **ONLINE, "rewards": rewards, "dataset": {"uri": prompts, "validationFraction": 0.2}, "zeroStage": zero,
        "epochs": 24, "rolloutBatchSize": 64, "updateEpochs": 2, "optimizer": {"learningRate": 3e-5},
        "criticOptimizer": {"learningRate": 1e-4}, "klCoefficient": 0.02,
    }  # fmt: skip
    config = stage(f"ppo-{zero}", model={"uri": base}, ppo=written)
    pods(config).run()
    record_property("seen", f"reward model's accuracy: {last['accuracy']:.2f}")
    assert_reward_rises(config)


@pytest.mark.parametrize("zero", [1, 3])
def test_grpo(zero: int, base: str, prompts: str, stage: GpuStage, pods: RunPods) -> None:
    written = {
        **ONLINE, "dataset": {"uri": prompts, "validationFraction": 0.2}, "zeroStage": zero, "epochs": 5,
        "numGenerations": 8, "beta": 0.02, "optimizer": {"learningRate": 1e-4},
    }  # fmt: skip
    config = stage(f"grpo-{zero}", model={"uri": base}, grpo=written)
    pods(config).run()
    assert_reward_rises(config)


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_dpo(zero: int, base: str, pairs: str, stage: GpuStage, pods: RunPods) -> None:
    dataset = {"uri": pairs, "validationFraction": 0.2}
    settings = {**PREFERENCE, "dataset": dataset, "zeroStage": zero, "optimizer": {"learningRate": 1e-5}}
    config = stage(f"dpo-{zero}", model={"uri": base}, dpo=settings)
    pods(config).run()
    first, last = first_and_last(config)
    assert first["margin"] == pytest.approx(0, abs=1e-2), "before the first step the model is its own reference"
    assert last["margin"] > first["margin"] + 0.1, (first, last)
    assert last["accuracy"] >= 0.9, last


@pytest.mark.parametrize("zero", [1, 3])
def test_kto(zero: int, base: str, pairs: str, stage: GpuStage, pods: RunPods) -> None:
    root = Path(stage("any", model={"uri": base}, sft=SFT).volumes_root)
    rows = [json.loads(line) for line in Path(local_path(pairs, str(root))).read_text().splitlines()]
    marked = [
        {"prompt": row["prompt"], "completion": row[column], "label": column == "chosen"}
        for row in rows
        for column in ("chosen", "rejected")
    ]
    (root / "corpus" / f"marked-{zero}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in marked))
    dataset = {"uri": f"pvc://corpus/marked-{zero}.jsonl", "validationFraction": 0.2}
    settings = {**PREFERENCE, "dataset": dataset, "zeroStage": zero, "optimizer": {"learningRate": 3e-5}}
    config = stage(f"kto-{zero}", model={"uri": base}, kto=settings)
    pods(config).run()
    first, last = first_and_last(config)
    assert first["margin"] == pytest.approx(0, abs=1e-2), first
    assert last["margin"] > 0.1, last


@pytest.mark.parametrize("zero", [1, 3])
@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_an_adapter(quantization: str | None, zero: int, base: str, stage: GpuStage, pods: RunPods) -> None:
    """Learns, and says merged into its base what it said apart from it."""
    if quantization and (zero == 3 or not find_spec("bitsandbytes")):
        pytest.skip("nf4 wants bitsandbytes and no ZeRO 3")
    lora = {"rank": 8, "quantization": quantization}
    settings = {**SFT, "lora": lora, "zeroStage": zero, "optimizer": {"learningRate": 1e-3}}
    config = stage(f"adapter-{quantization}-{zero}".lower(), model={"uri": base}, sft=settings)
    result = pods(config).run().result
    first, last = first_and_last(config)
    assert last["loss"] < first["loss"] - 0.1, (first, last)
    assert result
    assert (result.kind, result.base) == ("adapter", base)
    folder, base_folder = (Path(local_path(uri, config.volumes_root)) for uri in (result.uri, base))
    model = merged(base_folder, folder)
    assert bool(torch.isfinite(model(input_ids=torch.arange(2, 60)[None]).logits).all())
