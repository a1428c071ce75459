"""Tiny models of families that people bring by `spec.model.uri`, beside those that `architecture.family` names."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.trainer.test_families import DENSE, EXPERTS, FAMILIES, SIZE

VOCABULARY = 300
HEADS = {**DENSE, "head_dim": 8}
BROUGHT: dict[str, dict[str, Any]] = {
    "qwen2": {**DENSE, "tie_word_embeddings": True},
    "mistral": {**HEADS, "sliding_window": 16},
    "gemma2": {**HEADS, "sliding_window": 16, "query_pre_attn_scalar": 8},
    "gemma3_text": {**HEADS, "sliding_window": 16, "query_pre_attn_scalar": 8},
    "phi3": DENSE,
    "phi": DENSE,
    "olmo2": DENSE,
    "smollm3": DENSE,
    "granite": DENSE,
    "gpt_oss": {**EXPERTS, "head_dim": 8, "num_local_experts": 4, "sliding_window": 16},
    "gpt_neox": {**SIZE, "intermediate_size": 64},
    "starcoder2": DENSE,
    "stablelm": DENSE,
    "cohere": DENSE,
    "glm4": HEADS,
    "opt": {**SIZE, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "olmoe": {**EXPERTS, "num_experts": 4},
    "granitemoe": {**EXPERTS, "num_local_experts": 4},
    "falcon_h1": {
        **HEADS, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1,
        "mamba_chunk_size": 16,
    },
    "qwen3_next": {
        **EXPERTS, "head_dim": 8, "num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
        "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "lfm2": {**DENSE, "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
}  # fmt: skip
ALL = {"llama": DENSE, **FAMILIES, **BROUGHT}


def tiny(family: str, **keys: Any) -> PreTrainedModel:
    """With random weights, the same at every call."""
    torch.manual_seed(0)
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(family, **{"vocab_size": VOCABULARY, **ends, **ALL[family], **keys})
    made: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return made.eval()
