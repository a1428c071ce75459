"""What the tokenizer tells of later stages before any GPU is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from llm_trainer.data.tokenizer import train_tokenizer
from llm_trainer.data.tokenizer_checks import check_vocabulary
from llm_trainer.runtime.errors import ConfigurationError


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(iter(["one two three four"]), 300)


def test_more_tokens_than_embeddings(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"vocab_size": len(tokenizer)}))
    check_vocabulary(tokenizer, tmp_path)
    file.write_text(json.dumps({"vocab_size": len(tokenizer) - 1}))
    with pytest.raises(ConfigurationError, match=rf"spec.tokenizer: it has {len(tokenizer)} tokens"):
        check_vocabulary(tokenizer, tmp_path)
