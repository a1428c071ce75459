"""What answers are worth: reward models and the user's functions, and how a reward that can't work is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from llm_trainer.config import OnlineRl, StageConfig
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.models.build import attention, family_of
from llm_trainer.runtime.errors import ConfigurationError, StageError
from llm_trainer.stages.reward_functions import guarded, load_function

FLAT_STEPS = 20  # so many steps in a row whose rewards are all the same end the attempt


def load_reward_model(folder: Path, field: str) -> PreTrainedModel:
    """Raises ConfigurationError for a folder without a head that scores: transformers would make a random one."""
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{field}: {folder} holds no transformers model: there is no config.json")
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, attn_implementation=attention(family_of(folder)), dtype=torch.float32, output_loading_info=True
    )
    if info["missing_keys"] or model.config.num_labels != 1:
        raise ConfigurationError(
            f"{field}: {folder} is no reward model: {', '.join(sorted(info['missing_keys'])) or 'one label'} is "
            "missing; name a rewardModel stage or its result"
        )
    made: PreTrainedModel = model
    return made


def load_rewards(config: StageConfig, settings: OnlineRl) -> tuple[list[Any], list[Any]]:
    """Reward functions and models as TRL's trainers take them, and the tokenizers of the models."""
    rewards: list[Any] = []
    tokenizers: list[Any] = []
    for index, reward in enumerate(settings.rewards):
        field = f"rewards[{index}]"
        if reward.function:
            function = load_function(reward.function, f"{field}.function")
            rewards.append(guarded(function, reward.function, f"{field}.function"))
            tokenizers.append(None)
        elif reward.model:
            folder = Path(config.folder_of(reward.model))
            rewards.append(load_reward_model(folder, f"{field}.model"))
            tokenizers.append(load_tokenizer(folder, f"the tokenizer of {field}.model"))
    return rewards, tokenizers


class FlatRewards:
    """Ends a stage that can't learn because every answer is worth the same."""

    def __init__(self) -> None:
        self.steps = 0

    def see(self, rewards: torch.Tensor) -> None:
        """`rewards`: of all answers of a step. Raises StageError."""
        self.steps = self.steps + 1 if float(rewards.std()) < 1e-12 else 0
        if self.steps >= FLAT_STEPS:
            raise StageError(
                f"all rewards of the last {FLAT_STEPS} steps were {float(rewards.flatten()[0]):g}, so there is nothing "
                "to learn: choose a reward that tells good answers from bad ones, or start from a better model"
            )
