"""Fine-tuning on two processes by TRL, with the same guarantees as pretraining."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm_trainer.config import StageConfig, local_path
from llm_trainer.protocol import ExitCode
from tests.trainer.conftest import SFT, RunPods, stage_config
from tests.trainer.pods import evaluations, losses

Sft = Callable[..., StageConfig]


@pytest.fixture
def sft(prepared: Path, base: str) -> Sft:
    def make(stage: str, *, nodes: int = 2, attempt: int = 1, **settings: Any) -> StageConfig:
        return stage_config(prepared, stage, nodes=nodes, attempt=attempt, model={"uri": base}, sft={**SFT, **settings})

    return make


def test_learns_the_answers_and_exports(sft: Sft, pods: RunPods, prepared: Path) -> None:
    config = sft("chat")
    progress = pods(config).run()
    figures = evaluations(config)
    last = figures[max(figures)]
    assert last["loss"] < last["baseLoss"]
    assert figures[0]["loss"] == pytest.approx(last["baseLoss"])
    assert progress.result
    folder = local_path(progress.result.uri, str(prepared))
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in Path(folder).iterdir()}
    assert set(modes.values()) == {"0o644"}, f"whoever serves the result may be another user: {modes}"
    AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).chat_template


@pytest.mark.parametrize("step", [7, 12], ids=["first epoch", "second epoch"])
def test_kill_in_mid_stage(sft: Sft, pods: RunPods, step: int) -> None:
    whole = sft("whole")
    pods(whole).run()
    first = pods(sft(f"killed-sft-{step}")).start()
    first.until_step(step, saved=5)
    os.kill(first.pods[1].worker(), signal.SIGKILL)
    words = first.wait()
    assert words[0].exit_code == ExitCode.PEER_LOST, f"{words[0].reason}: {words[0].message}"
    second = sft(f"killed-sft-{step}", attempt=2)
    pods(second).run()
    expected, made = losses(whole), losses(second)
    assert sorted(made) == sorted(expected)
    assert max(abs(made[step] - expected[step]) for step in made) < 1e-5


def test_sigterm_to_one_rank(sft: Sft, pods: RunPods) -> None:
    first = pods(sft("preempted-sft")).start()
    first.until_step(3)
    first.pods[1].process.terminate()
    words = first.wait()
    assert [word.exit_code for word in words] == [ExitCode.PREEMPTED] * 2, words
    assert words[0].progress
    assert words[0].progress.checkpoint


def test_batches_change_nothing(sft: Sft, pods: RunPods) -> None:
    """The loss is over the tokens of a step, the held-out figure over all rows: however they are put together."""
    single = sft("one-by-one", nodes=1, microBatchSize=1, epochs=0.5)
    together = sft("together", microBatchSize=4, epochs=0.5)
    pods(single).run()
    pods(together).run()
    made, expected = losses(together), losses(single)
    assert len(made) > 2
    assert made == pytest.approx(expected, rel=1e-4)
    assert list(evaluations(together)) == list(evaluations(single))
    for step, figures in evaluations(together).items():
        assert figures == pytest.approx(evaluations(single)[step], rel=1e-4)


def test_rows_without_the_columns(sft: Sft, pods: RunPods, prepared: Path) -> None:
    (prepared / "corpus" / "wrong.jsonl").write_text('{"question": "?", "answer": "!"}\n')
    words = pods(sft("wrong", nodes=1, dataset={"uri": "pvc://corpus/wrong.jsonl"})).start().wait()
    assert words[0].exit_code == ExitCode.DATA
    assert "messages" in words[0].message
    assert "wrong.jsonl" in words[0].message


def test_bfloat16_products_on_float32_weights(sft: Sft, pods: RunPods, prepared: Path) -> None:
    exact, rounded = sft("exact", nodes=1, epochs=0.5), sft("rounded", nodes=1, epochs=0.5, precision="bfloat16")
    pods(exact).run()
    result = pods(rounded).run().result
    apart = [abs(loss - losses(exact)[step]) for step, loss in losses(rounded).items()]
    assert 0 < max(apart) < 0.05, f"the losses must differ by a rounding: {apart}"
    assert result
    weights = load_file(Path(local_path(result.uri, str(prepared))) / "model.safetensors").values()
    assert {weight.dtype for weight in weights} == {torch.float32}
    finer = [not torch.equal(weight, weight.bfloat16().float()) for weight in weights]
    assert all(finer), "the weights themselves are rounded"
