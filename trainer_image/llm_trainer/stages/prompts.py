"""The prompts of the stages that write answers."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from llm_trainer.config import OnlineRl, StageConfig
from llm_trainer.data.examples import Examples
from llm_trainer.data.rendering import Prompt
from llm_trainer.runtime.progress import Board
from llm_trainer.stages.fine_tuning import check_of

HELD_OUT_PROMPTS = 64  # an evaluation writes an answer to each

Row = dict[str, Any]


def prompt_rows(
    config: StageConfig, settings: OnlineRl, tokenizer: PreTrainedTokenizerBase, board: Board
) -> dict[str, list[Row]]:
    """`train_dataset` and, if anything is held out, `eval_dataset`, no larger than an evaluation needs.

    Every row has the columns that any row has, as they are in the file: Arrow would make one type of a column's values.
    Raises DataError and ConfigurationError, and tells notices, as data preparation has done.
    """
    examples = Examples(check_of(config, settings), tokenizer, config.volumes_root)
    rows = list(examples)
    columns = dict.fromkeys(column for row in rows for column in row)
    chosen = examples.held_out()
    for notice in examples.notices():
        board.notice(notice.reason, notice.message)
    whole = [{column: row.get(column) for column in columns} for row in rows]
    made = {"train_dataset": [row for row, held in zip(whole, chosen, strict=True) if not held]}
    if held_out := [row for row, held in zip(whole, chosen, strict=True) if held]:
        made["eval_dataset"] = held_out[:HELD_OUT_PROMPTS]
    return made


def decode_answer(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, tokens: list[int]) -> Prompt:
    """In the prompt's form: text, or the assistant's turn."""
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
