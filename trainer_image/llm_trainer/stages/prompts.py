"""The prompts of the stages that write answers."""

from __future__ import annotations

import datasets
from transformers import PreTrainedTokenizerBase

from llm_trainer.config import OnlineRl, StageConfig
from llm_trainer.data.tokenizer_checks import Prompt, encode_prompt
from llm_trainer.runtime.errors import DataError
from llm_trainer.runtime.progress import Board
from llm_trainer.stages.fine_tuning import check_chat_template, rows_of

HELD_OUT_PROMPTS = 64  # an evaluation writes an answer to each


def prompt_rows(
    config: StageConfig, settings: OnlineRl, tokenizer: PreTrainedTokenizerBase, board: Board
) -> dict[str, datasets.Dataset]:
    """As `rows_of`, without the prompts that are too long, and with no more held out than an evaluation needs.

    Raises DataError when no prompt is left.
    """
    rows = rows_of(config, settings)
    check_chat_template(tokenizer, rows["train_dataset"])
    kept = {
        name: dataset.filter(lambda row: len(encode_prompt(tokenizer, row["prompt"])) <= settings.max_prompt_length)
        for name, dataset in rows.items()
    }
    if dropped := sum(map(len, rows.values())) - sum(map(len, kept.values())):
        board.notice("RowsDropped", f"{dropped} prompts are longer than maxPromptLength {settings.max_prompt_length}")
    if not kept["train_dataset"]:
        raise DataError(f"every prompt is longer than maxPromptLength {settings.max_prompt_length}; raise it")
    held_out = kept.pop("eval_dataset", None)
    if held_out is not None and len(held_out):
        kept["eval_dataset"] = held_out.select(range(min(len(held_out), HELD_OUT_PROMPTS)))
    return kept


def decode_answer(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, tokens: list[int]) -> Prompt:
    """In the prompt's form: text, or the assistant's turn."""
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
