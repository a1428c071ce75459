"""What answers are worth: reward models and the user's functions, and how a reward that can't work is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from llm_trainer.config import OnlineRl, StageConfig
from llm_trainer.data.rendering import end_of_turn
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.models.build import implementation_for
from llm_trainer.models.inference import Inference
from llm_trainer.models.placement import Placement
from llm_trainer.models.value import ValueModel
from llm_trainer.models.weights import load, reward_config
from llm_trainer.rl.reward_functions import Function, guarded, load_reward
from llm_trainer.rl.rollout import Answers, batches
from llm_trainer.runtime.errors import ConfigurationError, DataError, StageError
from llm_trainer.runtime.process_group import ProcessGroup

Answer = Any  # text, or the turns of a conversation

FLAT_STEPS = 20  # so many steps in a row whose rewards are all the same end the attempt


def load_reward_model(config: StageConfig, folder: Path, field: str, *, half: bool = False) -> PreTrainedModel:
    """Placed as the stage's models are.

    Raises ConfigurationError and DataError for a folder without a head that scores, which nobody may make up.
    """
    try:
        reward_config(folder)
        implementation, placement = implementation_for(folder, half=half), Placement.of(config)
        return load(AutoModelForSequenceClassification, folder, placement=placement, attn_implementation=implementation)
    except (ConfigurationError, DataError) as error:
        raise type(error)(f"{field}: {error}") from error


def load_rewards(config: StageConfig, settings: OnlineRl) -> tuple[list[Any], list[Any]]:
    """Reward functions and models as TRL's trainers take them, and the tokenizers of the models."""
    rewards: list[Any] = []
    tokenizers: list[Any] = []
    for index, reward in enumerate(settings.rewards):
        field = f"rewards[{index}]"
        if reward.function:
            function = load_reward(reward.function, f"{field}.function")
            rewards.append(guarded(function, reward.function, f"{field}.function"))
            tokenizers.append(None)
        elif reward.model:
            folder = Path(config.folder_of(reward.model))
            rewards.append(load_reward_model(config, folder, f"{field}.model"))
            tokenizers.append(load_tokenizer(folder, f"the tokenizer of {field}.model"))
    return rewards, tokenizers


def scored_place(tokens: list[int], padding: int | None) -> int:
    """Where transformers' sequence classifiers score a row: the last token that isn't padding.

    Also where the padding is the token by which texts end, so that it is the one before the end.
    """
    return next((place for place in reversed(range(len(tokens))) if tokens[place] != padding), len(tokens) - 1)


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


class Rewards:
    """What answers are worth to a stage of our own: (answers, rewards), in the order of the settings."""

    def __init__(
        self, config: StageConfig, settings: OnlineRl, tokenizer: PreTrainedTokenizerBase, group: ProcessGroup
    ) -> None:
        """Raises ConfigurationError, as for a reward model that reads other tokens than the policy writes."""
        self.settings, self.group = settings, group
        self.weights = torch.tensor([reward.weight for reward in settings.rewards], device=group.device)
        self.judges: list[tuple[str, Inference | Function]] = []
        judges, tokenizers = load_rewards(config, settings)
        for index, (judge, own) in enumerate(zip(judges, tokenizers, strict=True)):
            if own is None:
                self.judges.append((judge.__name__, judge))
                continue
            if own.get_vocab() != tokenizer.get_vocab():
                raise ConfigurationError(
                    f"rewards[{index}].model has another tokenizer than the policy; train it from the same base"
                )
            self.judges.append((f"rewards[{index}]", Inference(ValueModel(judge), settings, group)))
        self.turn = end_of_turn(tokenizer)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.judges]

    @torch.no_grad()
    def of(self, rows: list[dict[str, Any]], answers: Answers, written: list[Answer]) -> torch.Tensor:
        """`rows` are the dataset's; `written` are the answers in the form of the prompts.

        Raises StageError for a score that is no number.
        """
        columns = []
        tails = [self.turn.tail if isinstance(row["prompt"], list) else [] for row in rows]
        for name, judge in self.judges:
            if isinstance(judge, Inference):
                scores = self._scores(judge, answers, tails)
            else:
                scores = self._call(judge, rows, written)
            if not torch.isfinite(scores).all():
                raise StageError(f"{name} scored an answer {float(scores[~torch.isfinite(scores)][0])}")
            columns.append(scores)
        return torch.stack(columns, dim=1)

    def _scores(self, model: Inference, answers: Answers, tails: list[list[int]]) -> torch.Tensor:
        """Of a model, where it learned to score: after what the chat template writes behind the end of a turn."""
        padding = model.model.config.pad_token_id
        wholes = [
            [*tokens[: end + 1], *(tail if tokens[end] == self.turn.end else [])]
            for tokens, end, tail in zip(answers.tokens.tolist(), answers.ends.tolist(), tails, strict=True)
        ]
        tokens = pad_sequence([torch.tensor(row) for row in wholes], batch_first=True, padding_value=padding or 0)
        places = torch.tensor([scored_place(row, padding) for row in wholes])
        tokens, places = tokens.to(self.group.device), places.to(self.group.device)
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        scores = []
        for rows in batches(len(tokens), self.settings.micro_batch_size):
            logits = model.logits(tokens[rows], positions[rows])
            scores.append(logits.gather(1, places[rows, None]).squeeze(1).float())
        return torch.cat(scores)

    def _call(self, function: Function, rows: list[dict[str, Any]], written: list[Answer]) -> torch.Tensor:
        columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
        found = function(prompts=[row["prompt"] for row in rows], completions=written, **columns)
        return torch.tensor(found, dtype=torch.float32, device=self.group.device)
