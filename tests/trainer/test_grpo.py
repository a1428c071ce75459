"""GRPO on two processes: a rule-based reward rises, and rewards that can't work end the stage with their cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import StageConfig
from llm_trainer.protocol import ExitCode
from tests.trainer.conftest import RunPods, stage_config
from tests.trainer.online import LARGEST_KL, ONLINE, PYTHONPATH, assert_reward_rises, figures

GRPO = {
    **ONLINE,
    "epochs": 9,  # 50 steps
    "globalBatchSize": 64,
    "microBatchSize": 32,
    "numGenerations": 8,
    "beta": 0.15,
    "optimizer": {"learningRate": 0.003},
}

Grpo = Callable[..., StageConfig]


@pytest.fixture
def grpo(prepared: Path, base: str, prompts: str) -> Grpo:
    def make(stage: str, *, nodes: int = 2, **settings: Any) -> StageConfig:
        written = {**GRPO, "dataset": {"uri": prompts, "validationFraction": 0.2}, **settings}
        return stage_config(prepared, stage, nodes=nodes, model={"uri": base}, grpo=written)

    return make


@pytest.mark.parametrize(
    ("zero", "seed"),
    [pytest.param(1, 0, marks=pytest.mark.release), pytest.param(2, 1, marks=pytest.mark.release), (3, 2)],
)
def test_the_reward_rises(grpo: Grpo, pods: RunPods, zero: int, seed: int) -> None:
    config = grpo(f"grpo-{seed}", zeroStage=zero, seed=seed)
    pods(config, PYTHONPATH=PYTHONPATH).run()
    assert_reward_rises(config)
    assert config.grpo
    divergence = {step: kl * config.grpo.max_completion_length for step, kl in figures(config, "kl").items()}
    assert max(divergence.values()) < LARGEST_KL, divergence
    assert all(figures(config, name) for name in ("reward_std", "entropy", "completions/mean_length"))


def test_a_reward_that_is_always_the_same(grpo: Grpo, pods: RunPods) -> None:
    config = grpo("flat", nodes=1, rewards=[{"function": "tests.trainer.reward_functions:flat"}])
    words = pods(config, PYTHONPATH=PYTHONPATH).start().wait()
    assert words[0].exit_code == ExitCode.INTERNAL, words[0]
    assert "were 1, so there is nothing to learn" in words[0].message
