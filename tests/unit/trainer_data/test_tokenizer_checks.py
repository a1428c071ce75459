"""What the tokenizer tells of later stages before any GPU is taken."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from llm_trainer.data.tokenizer import train_tokenizer
from llm_trainer.data.tokenizer_checks import check_vocabulary
from llm_trainer.runtime.errors import ConfigurationError, DataError


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(iter(["one two three four"]), 300)


def test_more_tokens_than_embeddings(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    file, size = tmp_path / "config.json", len(tokenizer)
    file.write_text(json.dumps({"vocab_size": size}))
    check_vocabulary(tokenizer, tmp_path)
    file.write_text(json.dumps({"vocab_size": size - 1}))
    with pytest.raises(ConfigurationError, match=rf"{size} tokens and the model {size - 1} embeddings, none for .*"
                       "another model's tokenizer"):  # fmt: skip
        check_vocabulary(tokenizer, tmp_path)
    file.write_text(json.dumps({"vocab_size": size}))
    more = copy.deepcopy(tokenizer)
    more.add_special_tokens({"additional_special_tokens": ["<picture>"]})
    with pytest.raises(
        ConfigurationError, match=rf"none for '<picture>' \({size}\); if your texts don't need them, remove"
    ):
        check_vocabulary(more, tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, "\xff"])
def test_a_configuration_that_is_none(tokenizer: PreTrainedTokenizerBase, tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    if content == "[]":
        check_vocabulary(tokenizer, tmp_path)  # who opens the model says so
        return
    with pytest.raises(DataError, match=r"^spec.model.uri: .*config.json "):
        check_vocabulary(tokenizer, tmp_path)
