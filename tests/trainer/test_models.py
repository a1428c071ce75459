"""Packed rows give what each document alone would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llm_trainer.config import Architecture
from llm_trainer.data.manifest import TOKENIZER
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.models.attention import attention
from llm_trainer.models.build import check_architecture
from llm_trainer.models.packing import runs_on, unpack
from llm_trainer.runtime.errors import ConfigurationError
from tests.trainer.test_families import DENSE, FAMILIES


@pytest.mark.parametrize("family", ["llama", *FAMILIES])
def test_packed_is_unpacked(family: str) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=64, **FAMILIES.get(family, DENSE))
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention(config).implementation).eval()
    documents = [torch.randint(1, 64, (length,)) for length in (5, 9, 3)]
    tokens = torch.cat(documents)[None]
    positions = torch.cat([torch.arange(len(document)) for document in documents])[None]
    with torch.no_grad():
        if runs_on(model):
            made = torch.zeros(*tokens.shape, 64)
            for rows in unpack(tokens, positions):
                made = rows.put(model(input_ids=rows.tokens, use_cache=False).logits, made)
            packed = made[0]
        else:
            packed = model(input_ids=tokens, position_ids=positions, use_cache=False).logits[0]
        alone = torch.cat([model(input_ids=document[None], use_cache=False).logits[0] for document in documents])
    assert torch.allclose(packed, alone, atol=1e-5), float((packed - alone).abs().max())


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llama", {"hidden_act": "none_such"}),
        ("gpt2", {"n_embd": 30}),
        ("mixtral", {"num_hidden_layers": "two"}),
    ],
)
def test_what_transformers_can_not_build(family: Any, config: dict[str, Any], prepared: Path) -> None:
    tokenizer = load_tokenizer(prepared / "models/run/data" / TOKENIZER)
    check_architecture(Architecture(family=family, config=FAMILIES.get(family, DENSE)), tokenizer)
    with pytest.raises(ConfigurationError, match="architecture: "):
        check_architecture(Architecture(family=family, config={**FAMILIES.get(family, DENSE), **config}), tokenizer)
