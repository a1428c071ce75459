"""GRPO on two processes: a rule-based reward rises, and rewards that can't work end the stage with their cause."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import StageConfig
from llm_trainer.protocol import ExitCode
from tests.trainer.conftest import RunPods, stage_config
from tests.trainer.pods import evaluations, history

GRPO = {
    "epochs": 6,
    "maxPromptLength": 32,
    "maxCompletionLength": 8,
    "globalBatchSize": 32,
    "microBatchSize": 16,
    "numGenerations": 8,
    "precision": "float32",
    "optimizer": {"learningRate": 0.003},
    "schedule": {"type": "constant"},
    "evaluateEverySteps": 20,
    "rewards": [{"function": "tests.trainer.reward_functions:vowels"}],
}
ROOT = Path(__file__).parents[2]

Grpo = Callable[..., StageConfig]


@pytest.fixture
def grpo(prepared: Path, base: str) -> Grpo:
    words = ["list", "tuple", "string", "number", "class", "module", "name", "value"]
    rows = [{"prompt": f"What is a {one} of {other}? "} for one in words for other in words]
    (prepared / "corpus" / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(stage: str, *, nodes: int = 2, attempt: int = 1, **settings: Any) -> StageConfig:
        dataset = {"uri": "pvc://corpus/prompts.jsonl", "validationFraction": 0.2}
        return stage_config(
            prepared, stage, nodes=nodes, attempt=attempt, model={"uri": base},
            grpo={**GRPO, "dataset": dataset, **settings},
        )  # fmt: skip

    return make


@pytest.mark.parametrize(("zero", "seed"), [(1, 0), (1, 1), (3, 2)])
def test_the_reward_rises(grpo: Grpo, pods: RunPods, zero: int, seed: int) -> None:
    config = grpo(f"grpo-{zero}-{seed}", zeroStage=zero, seed=seed)
    pods(config, PYTHONPATH=f"{ROOT}:{ROOT / 'trainer_image'}").run()
    figures = evaluations(config)
    first, last = figures[0]["reward"], figures[max(figures)]["reward"]
    assert last - first >= (1 - first) / 2, f"half of what could be gained: {figures}"
    row = next(row for row in history(config) if "figures" in row)
    assert {"reward", "reward_std", "entropy", "completions/mean_length"} <= set(row["figures"]), row


def test_a_reward_that_is_always_the_same(grpo: Grpo, pods: RunPods) -> None:
    config = grpo("flat", nodes=1, rewards=[{"function": "tests.trainer.reward_functions:flat"}])
    words = pods(config, PYTHONPATH=f"{ROOT}:{ROOT / 'trainer_image'}").start().wait()
    assert words[0].exit_code == ExitCode.INTERNAL, words[0]
    assert "were 1, so there is nothing to learn" in words[0].message
