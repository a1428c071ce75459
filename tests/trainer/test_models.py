"""Packed rows give what each document alone would give."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llm_trainer.models.build import attention

FAMILIES = {
    "llama": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "vocab_size": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "n_positions": 64},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_is_unpacked(family: str) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention()).eval()
    documents = [torch.randint(1, 64, (length,)) for length in (5, 9, 3)]
    tokens = torch.cat(documents)[None]
    positions = torch.cat([torch.arange(len(document)) for document in documents])[None]
    with torch.no_grad():
        packed = model(input_ids=tokens, position_ids=positions, use_cache=False).logits[0]
        alone = torch.cat([model(input_ids=document[None], use_cache=False).logits[0] for document in documents])
    assert torch.allclose(packed, alone, atol=1e-5), float((packed - alone).abs().max())
