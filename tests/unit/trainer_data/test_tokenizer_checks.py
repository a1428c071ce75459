"""What the tokenizer tells of later stages before any GPU is taken."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from llm_trainer.data.tokenizer import train_tokenizer
from llm_trainer.models.limits import check_length, check_vocabulary
from llm_trainer.runtime.errors import ConfigurationError


def model(size: int, family: str = "llama") -> PreTrainedModel:
    with torch.device("meta"):
        made: PreTrainedModel = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(family, vocab_size=size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
        )
    return made


def test_more_tokens_than_embeddings() -> None:
    tokenizer = train_tokenizer(iter(["one two three four"]), 300)
    size = len(tokenizer)
    check_vocabulary(model(size), tokenizer, "it")
    with pytest.raises(ConfigurationError, match=rf"it: .*{size} tokens and the model {size - 1} embeddings, none for "
                       ".*another model's tokenizer"):  # fmt: skip
        check_vocabulary(model(size - 1), tokenizer, "it")
    more = copy.deepcopy(tokenizer)
    more.add_special_tokens({"additional_special_tokens": ["<picture>"]})
    with pytest.raises(
        ConfigurationError, match=rf"none for '<picture>' \({size}\); if your texts don't need them, remove"
    ):
        check_vocabulary(model(size), more, "it")


def test_rows_longer_than_positions() -> None:
    """By whatever name a family has them; one without any reads rows of every length."""
    for family, positions in (("llama", 2048), ("gpt2", 1024), ("bloom", None), ("mamba", None)):
        made = model(300, family)
        check_length(made, positions or 1 << 20, "sft.maxLength")
        if positions:
            with pytest.raises(ConfigurationError, match=rf"sft.maxLength {positions + 1} is beyond .* {positions} "):
                check_length(made, positions + 1, "sft.maxLength")
