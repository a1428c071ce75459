"""`python -m llm_operator plan FILE`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llm_operator.plan import main
from tests.specs import TRAINING, changed

EXAMPLE = Path(__file__).parents[2] / "examples" / "bilingual-chat.yaml"


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(EXAMPLE)]) == 0
    said = capsys.readouterr().out
    for line in (
        "llama from scratch, 6.52 M parameters",
        "32 = 16 × 2 processes × 1 accumulated, of up to 256 tokens",
        "2.46 M in 300 steps of 8,192",
        "chat       sft from base",
        "74.7Mi per process for weights, gradients and optimizer state",
        "ZeRO 1: optimizer state in 2 shards",
        "adamw at 0.003, betas 0.9 and 0.95, weight decay 0.1; 50 steps of warm-up, then wsd, of which 0.3 decays,",
        "adamw at 0.001, betas 0.9 and 0.999, weight decay 0;",
    ):
        assert line in said, said


def test_a_rollout_is_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    """PPO's steps are rollouts, not updates; GRPO's prompts have several answers each."""
    assert main([str(EXAMPLE.parent / "whole-chain.yaml"), str(EXAMPLE.parent / "stages" / "grpo.yaml")]) == 0
    said = capsys.readouterr().out
    assert "rows of pvc://corpus/prompts-train.jsonl × 0.25 / 64" in said, said
    assert "rows of pvc://corpus/prompts-train.jsonl × 0.05 / 8" in said, said


def test_a_file_that_can_not_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "wrong.yaml"
    spec = changed(TRAINING, stages__0__globalBatchSize=9)
    file.write_text(yaml.safe_dump({"kind": "LLMTraining", "metadata": {"name": "wrong"}, "spec": spec}))
    assert main([str(file)]) == 1
    assert "spec.stages[0].globalBatchSize: 9 is not divisible by 2" in capsys.readouterr().out


def test_a_file_without_a_training(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("kind: LLMServing\n")
    assert main([str(tmp_path / "empty.yaml")]) == 2
