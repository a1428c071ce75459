"""What the tests of the stages that write answers have in common: a task whose best answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llm_trainer.config import StageConfig
from tests.trainer.pods import history

ROOT = Path(__file__).parents[2]
PYTHONPATH = f"{ROOT}:{ROOT / 'trainer_image'}"  # with the tests' own reward functions

# About a third of the first letters are from a to e; to be sure of one is 1.1 nats away from that.
LARGEST_KL = 5.0  # nats per answer
ONLINE: dict[str, Any] = {
    "maxPromptLength": 32,
    "maxCompletionLength": 4,
    "globalBatchSize": 32,
    "microBatchSize": 16,
    "precision": "float32",
    "optimizer": {"learningRate": 0.002},
    "schedule": {"type": "constant"},
    "evaluation": {"everySteps": 1000},
    "rewards": [{"function": "tests.trainer.reward_functions:early"}],
}


WORDS = ("list", "tuple", "string", "number", "class", "module", "name", "value")


def write_prompts(volumes: Path) -> str:
    """The URI of 64 prompts."""
    rows = [{"prompt": f"What is a {one} of {other}? "} for one in WORDS for other in WORDS]
    (volumes / "corpus" / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "pvc://corpus/prompts.jsonl"


def figures(config: StageConfig, name: str) -> dict[int, float]:
    """One of a stage's figures by step."""
    return {row["step"]: row["figures"][name] for row in history(config) if name in row.get("figures", {})}


def assert_reward_rises(config: StageConfig) -> None:
    """By half of what could be gained: the last five steps against the first three."""
    rewards = list(figures(config, "reward").values())
    first, last = sum(rewards[:3]) / 3, sum(rewards[-5:]) / 5
    assert last - first >= (1 - first) / 2, f"from {first:.2f} to {last:.2f} in {len(rewards)} steps: {rewards}"
