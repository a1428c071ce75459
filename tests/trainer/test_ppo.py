"""PPO on two processes: a reward rises, ZeRO changes nothing, and a killed run goes on as if it had not been."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import StageConfig
from tests.trainer.conftest import RunPods, stage_config
from tests.trainer.pods import evaluations, history

PPO = {
    "epochs": 8,
    "maxPromptLength": 32,
    "maxCompletionLength": 8,
    "globalBatchSize": 32,
    "rolloutBatchSize": 64,
    "microBatchSize": 16,
    "updateEpochs": 4,
    "precision": "float32",
    "optimizer": {"learningRate": 0.003},
    "criticOptimizer": {"learningRate": 0.003},
    "schedule": {"type": "constant"},
    "evaluateEverySteps": 20,
    "rewards": [{"function": "tests.trainer.reward_functions:vowels"}],
}
ROOT = Path(__file__).parents[2]
PYTHONPATH = f"{ROOT}:{ROOT / 'trainer_image'}"

Ppo = Callable[..., StageConfig]


@pytest.fixture
def ppo(prepared: Path, base: str) -> Ppo:
    words = ["list", "tuple", "string", "number", "class", "module", "name", "value"]
    rows = [{"prompt": f"What is a {one} of {other}? "} for one in words for other in words]
    (prepared / "corpus" / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(stage: str, *, nodes: int = 2, attempt: int = 1, **settings: Any) -> StageConfig:
        dataset = {"uri": "pvc://corpus/prompts.jsonl", "validationFraction": 0.2}
        return stage_config(
            prepared, stage, nodes=nodes, attempt=attempt, model={"uri": base},
            ppo={**PPO, "dataset": dataset, **settings},
        )  # fmt: skip

    return make


def figures(config: StageConfig, name: str) -> dict[int, float]:
    return {row["step"]: row["figures"][name] for row in history(config) if name in row.get("figures", {})}


@pytest.mark.parametrize(("zero", "seed"), [(1, 0), (1, 1), (3, 2)])
def test_the_reward_rises(ppo: Ppo, pods: RunPods, zero: int, seed: int) -> None:
    config = ppo(f"ppo-{zero}-{seed}", zeroStage=zero, seed=seed)
    pods(config, PYTHONPATH=PYTHONPATH).run()
    held_out = evaluations(config)
    first, last = held_out[0]["reward"], held_out[max(held_out)]["reward"]
    assert last - first >= (1 - first) / 2, f"half of what could be gained: {held_out}"
