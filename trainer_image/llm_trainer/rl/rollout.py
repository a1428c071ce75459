"""Answers that the policy writes to prompts, as rows that its models read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedTokenizerBase

from llm_trainer.config import OnlineRl
from llm_trainer.data.rendering import stop_tokens
from llm_trainer.models.engine import Engine


@dataclass(frozen=True)
class Answers:
    """Rows of prompt, answer and padding: what is causal does not see what comes after.

    ``tokens``: (answers, length + 1). ``answered``: (answers, length), True where the next token is an answer's.
    ``finished``: (answers,), whether an answer ended by itself. ``sampled``: (answers, length), the log-probabilities
    by the sampler that wrote the answers, if that was not the policy's own network.
    """

    tokens: torch.Tensor
    answered: torch.Tensor
    finished: torch.Tensor
    sampled: torch.Tensor | None = None

    @property
    def positions(self) -> torch.Tensor:
        """(answers, length)."""
        return torch.arange(self.answered.shape[1], device=self.tokens.device).expand_as(self.answered)

    @property
    def all_positions(self) -> torch.Tensor:
        """(answers, length + 1)."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device).expand_as(self.tokens)

    @property
    def ends(self) -> torch.Tensor:
        """(answers,), where in `tokens` an answer's last token is."""
        return self.answered.long().cumsum(dim=1).argmax(dim=1) + 1

    @property
    def lengths(self) -> torch.Tensor:
        """(answers,), in tokens."""
        return self.answered.sum(dim=1)

    @property
    def answered_tokens(self) -> torch.Tensor:
        """(answers, length), what was written at each place."""
        return self.tokens[:, 1:]

    def pick(self, rows: torch.Tensor, *, trim: bool = True) -> Answers:
        """Some of the answers; `trim`: no longer than the longest of them."""
        length = int(self.ends[rows].max()) if trim else self.answered.shape[1]
        sampled = self.sampled[rows, :length] if self.sampled is not None else None
        return Answers(self.tokens[rows, : length + 1], self.answered[rows, :length], self.finished[rows], sampled)

    def completions(self) -> list[list[int]]:
        """Token ids of every answer, its end included."""
        return [row[1:][mask].tolist() for row, mask in zip(self.tokens, self.answered, strict=True)]


def join(
    prompts: list[list[int]], completions: list[list[int]], ends: Collection[int], padding: int, device: torch.device
) -> Answers:
    rows = [torch.tensor([*p, *c]) for p, c in zip(prompts, completions, strict=True)]
    tokens = pad_sequence(rows, batch_first=True, padding_value=padding)
    places = torch.arange(tokens.shape[1] - 1)
    first = torch.tensor([len(prompt) - 1 for prompt in prompts])[:, None]
    last = torch.tensor([len(row) - 1 for row in rows])[:, None]
    answered = (places >= first) & (places < last)
    finished = torch.tensor([bool(completion) and completion[-1] in ends for completion in completions])
    return Answers(tokens.to(device), answered.to(device), finished.to(device))


@torch.no_grad()
def generate(
    engine: Engine, prompts: list[list[int]], settings: OnlineRl, tokenizer: PreTrainedTokenizerBase
) -> Answers:
    """One sampled answer to each prompt, by transformers."""
    ends = rollout_ends(engine, tokenizer)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    longest = max(map(len, prompts))
    tokens = torch.tensor([[padding] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    how = GenerationConfig(
        do_sample=True,
        use_cache=True,
        temperature=settings.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=settings.max_completion_length,
        eos_token_id=ends,
        pad_token_id=padding,
    )
    device = engine.group.device
    with engine.whole() as model, own_sampling(model):
        written = model.generate(input_ids=tokens.to(device), attention_mask=mask.to(device), generation_config=how)
    completions = [until(ends, row) for row in written[:, longest:].tolist()]
    return join(prompts, completions, ends, padding, device)


@contextmanager
def own_sampling(model: Any) -> Iterator[None]:
    """Answers are sampled by the settings alone: transformers takes what they don't name from the model's own.

    The probabilities that a stage learns from are those of the whole distribution.
    """
    kept = model.generation_config
    models = [model, model.get_base_model()] if hasattr(model, "get_base_model") else [model]  # peft hands its own down
    try:
        for each in models:
            each.generation_config = GenerationConfig(eos_token_id=kept.eos_token_id, pad_token_id=kept.pad_token_id)
        yield
    finally:
        for each in models:
            each.generation_config = kept


def rollout_ends(engine: Engine, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Where an answer ends; the first is the end of text."""
    known = getattr(getattr(engine.model, "generation_config", None), "eos_token_id", None)
    return stop_tokens(tokenizer, known)


def batches(count: int, size: int) -> Iterator[torch.Tensor]:
    """Numbers of rows, from 0, so many at a time."""
    for begin in range(0, count, size):
        yield torch.arange(begin, min(begin + size, count))


def until(ends: Collection[int], tokens: list[int]) -> list[int]:
    """Up to the first of `ends`, which is kept."""
    place = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: place + 1]
