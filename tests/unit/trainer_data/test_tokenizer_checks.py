"""What the tokenizer tells of later stages before any GPU is taken."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from llm_trainer.config import DatasetCheck, Sft
from llm_trainer.data.tokenizer import train_tokenizer
from llm_trainer.data.tokenizer_checks import check_rows, check_vocabulary
from llm_trainer.runtime.errors import ConfigurationError, DataError

STAGE = "spec.stages[1].sft"
TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(iter(["one two three four"]), 300)


def check(**settings: object) -> DatasetCheck:
    sft = Sft.model_validate({"dataset": {"uri": "pvc://corpus/chat.jsonl"}, "maxLength": 9, **settings})
    return DatasetCheck.of(sft, STAGE)


def test_long_prompts_are_counted_and_refused_if_all_are(tokenizer: PreTrainedTokenizerBase) -> None:
    short, long = {"prompt": "12345678", "completion": "c"}, {"prompt": "123456789", "completion": "c"}
    assert check_rows(check(), [short, short], tokenizer) == 0
    assert check_rows(check(), [short, long], tokenizer) == 1
    with pytest.raises(DataError, match=r"sft.maxLength: all 2 prompts of pvc://corpus/chat.jsonl have more than 8 "):
        check_rows(check(), [long, long], tokenizer)


def test_a_template_without_generation_marks(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [{"messages": TURNS}]
    assert check_rows(check(), rows, tokenizer) == 0
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ConfigurationError, match=r"^spec.stages\[1\].sft.assistantOnlyLoss needs to know"):
        check_rows(check(), rows, tokenizer)
    assert check_rows(check(assistantOnlyLoss=False), rows, tokenizer) == 0
    tokenizer.chat_template = None
    with pytest.raises(ConfigurationError, match=r"sft.dataset.uri: the dataset holds conversations"):
        check_rows(check(assistantOnlyLoss=False), rows, tokenizer)


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
