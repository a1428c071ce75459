"""The prompts of the stages that write answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, overload

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from llm_trainer.config import OnlineRl, StageConfig
from llm_trainer.data.examples import refuse_few_prompts
from llm_trainer.data.rendering import Prompt
from llm_trainer.runtime.progress import Board
from llm_trainer.stages.fine_tuning import check_of, kept_rows

HELD_OUT_PROMPTS = 64  # an evaluation writes an answer to each

Row = dict[str, Any]


class PromptRows(Sequence[Row]):
    """Mapped into memory, and each made when it is asked for, with the columns that any row of the dataset has."""

    def __init__(self, rows: pa.Table, columns: Sequence[str]) -> None:
        self._rows, self._columns = rows["row"], columns

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        row = json.loads(self._rows[place].as_py())
        return {column: row.get(column) for column in self._columns}


def prompt_rows(
    config: StageConfig, settings: OnlineRl, tokenizer: PreTrainedTokenizerBase, board: Board, rank: int = 0
) -> dict[str, Sequence[Row]]:
    """`train_dataset` and, if anything is held out, `eval_dataset`, no larger than an evaluation needs.

    All processes of the stage call it. Raises DataError and ConfigurationError, and tells notices, as data preparation
    has done.
    """
    check = check_of(config, settings)
    kept = kept_rows(config, check, tokenizer, rank)
    refuse_few_prompts(check, len(kept.train), len(kept.held_out))
    for notice in kept.notices:
        board.notice(notice.reason, notice.message)
    made: dict[str, Sequence[Row]] = {"train_dataset": PromptRows(kept.train, kept.columns)}
    if len(kept.held_out):
        made["eval_dataset"] = PromptRows(kept.held_out.slice(0, HELD_OUT_PROMPTS), kept.columns)
    return made


def decode_answer(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, tokens: list[int]) -> Prompt:
    """In the prompt's form: text, or the assistant's turn."""
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
