"""What of later stages can be told once there is a tokenizer, before any GPU is taken."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from llm_trainer.config import DatasetCheck
from llm_trainer.data.files import told
from llm_trainer.data.rows import Row
from llm_trainer.runtime.errors import ConfigurationError, DataError

Prompt = str | list[dict[str, str]]  # text, or the turns of a conversation


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: Path) -> None:
    """Raises ConfigurationError for a model that has no embedding for some of the tokens."""
    file = model / "config.json"
    if not file.is_file():
        raise ConfigurationError(f"spec.model.uri: {model} holds no transformers model: there is no config.json")
    with told("spec.model.uri", file):
        config = json.loads(file.read_bytes())
    embeddings = config.get("vocab_size") if isinstance(config, dict) else None
    if isinstance(embeddings, int) and len(tokenizer) > embeddings:
        raise ConfigurationError(f"spec.model.uri: {too_many_tokens(tokenizer, embeddings)}")


def too_many_tokens(tokenizer: PreTrainedTokenizerBase, embeddings: int) -> str:
    """What is said of a tokenizer with tokens for which a model has no embedding, and what to do about it."""
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= embeddings}
    added = set(beyond) & set(tokenizer.get_added_vocab())
    names = sorted(beyond, key=lambda token: beyond[token])
    listed = ", ".join(f"{token!r} ({beyond[token]})" for token in names[:4])
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    said = f"its tokenizer has {len(tokenizer)} tokens and the model {embeddings} embeddings, none for {listed}{more}; "
    if added and added == set(beyond):
        return said + (
            "if your texts don't need them, remove these from added_tokens of tokenizer.json and from "
            "added_tokens_decoder and additional_special_tokens of tokenizer_config.json, or call "
            "resize_token_embeddings of the model and save it"
        )
    return said + "it is another model's tokenizer: leave out spec.tokenizer, so that the model's own is used"


def check_rows(check: DatasetCheck, rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase) -> int:
    """How many rows will be left out for the length of their prompts.

    Raises ConfigurationError for conversations that the tokenizer can't write, DataError if no row is left.
    """
    total = too_long = 0
    for total, row in enumerate(rows, start=1):
        if total == 1 and any(isinstance(row.get(column), list) for column in check.any_of_columns[0] + ["messages"]):
            check_template(check, tokenizer)
        prompt = row.get("prompt")
        if prompt is not None and check.longest_prompt is not None:
            too_long += len(encode_prompt(tokenizer, prompt)) > check.longest_prompt
    if total and too_long == total:
        raise DataError(
            f"{check.prompt_field}: all {total} prompts of {check.uri} have more than {check.longest_prompt} tokens; "
            "raise it or shorten the prompts"
        )
    return too_long


def check_template(check: DatasetCheck, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ConfigurationError for a tokenizer that can't write conversations, or not as the loss needs them."""
    if not tokenizer.chat_template:
        raise ConfigurationError(
            f"{check.field}: the dataset holds conversations, and the tokenizer has no chat template to write them: "
            "use text, or a tokenizer with a chat template"
        )
    if check.assistant_only_loss:
        check_generation_marks(tokenizer, check.field.removesuffix("dataset.uri") + "assistantOnlyLoss")


def check_generation_marks(tokenizer: PreTrainedTokenizerBase, field: str = "assistantOnlyLoss") -> None:
    """Raises ConfigurationError for a chat template that does not tell what the assistant says."""
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    if has_generation_markers(tokenizer.chat_template):
        return
    try:
        get_training_chat_template(tokenizer)  # TRL knows the templates of many models and how to mark them
    except ValueError as error:
        raise ConfigurationError(
            f"{field} needs to know what the assistant says, and the tokenizer's chat template does not mark it: put "
            "{% generation %} … {% endgeneration %} around it, or set assistantOnlyLoss: false to learn whole "
            "conversations"
        ) from error


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids, up to where the answer begins."""
    if isinstance(prompt, str):
        ids: list[int] = tokenizer(prompt)["input_ids"]
        return ids
    chat: list[int] = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
    return chat
