"""Tiny random models of the families that vLLM serves on CPU, with what transformers says of a few prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from llm_trainer.models.build import UNSAID
from tests.e2e.served_families import EXPECTED

# Heads of 32: vLLM's attention on CPU has kernels for 32, 64, 80, 96, 112, 128, 160, 192, 224, 256 and 512.
SIZE = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
DENSE = {**SIZE, "intermediate_size": 256, "num_key_value_heads": 2}
EXPERTS = {**DENSE, "num_experts_per_tok": 2}
CONTINUATION = 8  # tokens; vLLM has other kernels for them than for a prompt's
# The others are not served on CPU: llm_operator/serving/families.py and docs/families.md tell why.
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "llama": DENSE,
    "qwen3": {**DENSE, "head_dim": 32},
    "mixtral": {**EXPERTS, "num_local_experts": 4},
    "qwen3_moe": {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 64, "head_dim": 32},
    "deepseek_v3": {
        **EXPERTS, "num_key_value_heads": 4, "n_routed_experts": 4, "moe_intermediate_size": 64, "n_group": 2,
        "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 32, "kv_lora_rank": 64, "qk_rope_head_dim": 32,
        "qk_nope_head_dim": 64, "v_head_dim": 64,
    },
    "mamba2": {
        "hidden_size": 128, "num_hidden_layers": 2, "state_size": 16, "num_heads": 8, "head_dim": 32, "n_groups": 1,
        "chunk_size": 16, "expand": 2,
    },
    "gemma3_text": {**DENSE, "head_dim": 32, "query_pre_attn_scalar": 32},
    "cohere": DENSE,
    "qwen2": DENSE,
    "mistral": {**DENSE, "head_dim": 32, "sliding_window": None},
    "gemma2": {**DENSE, "head_dim": 32, "query_pre_attn_scalar": 32},
    "phi3": DENSE,
    "phi": DENSE,
    "olmo2": DENSE,
    "smollm3": DENSE,
    "granite": DENSE,
    "gpt_oss": {**EXPERTS, "num_local_experts": 4, "head_dim": 32},
    "gpt_neox": {**SIZE, "intermediate_size": 256},
    "starcoder2": DENSE,
    "stablelm": DENSE,
    "glm4": {**DENSE, "head_dim": 32},
    "opt": {**SIZE, "ffn_dim": 256, "word_embed_proj_dim": 128},
    "olmoe": {**EXPERTS, "num_experts": 4},
    "granitemoe": {**EXPERTS, "num_local_experts": 4},
    "falcon_h1": {
        **DENSE, "head_dim": 32, "mamba_d_ssm": 256, "mamba_n_heads": 8, "mamba_d_head": 32, "mamba_n_groups": 1,
        "mamba_d_state": 16, "mamba_chunk_size": 16,
    },
    "qwen3_next": {
        **EXPERTS, "num_experts": 4, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64,
        "head_dim": 32, "linear_key_head_dim": 32, "linear_value_head_dim": 32, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"],
    },
    "lfm2": {**DENSE, "layer_types": ["conv", "full_attention"], "full_attn_idxs": [1]},
}  # fmt: skip


def write_model(folder: Path, family: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """A transformers folder, and beside it what transformers says of random prompts of 5, 17 and 60 tokens."""
    torch.manual_seed(0)
    ends = {f"{end}_token_id": getattr(tokenizer, f"{end}_token_id") for end in ("bos", "eos", "pad")}
    keys = {**MODELS[family], **UNSAID.get(family, {})}
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **ends, **keys)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.1)  # far from uniform, so that a wrong layer shows
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    prompts = [torch.randint(3, len(tokenizer), (length,)).tolist() for length in (5, 17, 60)]
    (folder / EXPECTED).write_text(json.dumps([expected(model, prompt) for prompt in prompts]))
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors keeps its file to one user, and the pod's is another


def expected(model: Any, prompt: list[int]) -> dict[str, list[Any]]:
    """The most likely continuation, and nats of each token but the first."""
    tokens = list(prompt)
    for _ in range(CONTINUATION):
        tokens.append(int(log_probs(model, tokens)[-1].argmax()))
    told = log_probs(model, tokens)[:-1].gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0]
    return {"prompt": prompt, "continuation": tokens[len(prompt) :], "logProbs": told.tolist()}


@torch.no_grad()
def log_probs(model: Any, tokens: list[int]) -> torch.Tensor:
    """Of what comes after each token: (tokens, vocabulary), in nats."""
    after: torch.Tensor = model(torch.tensor([tokens]), use_cache=False).logits[0].log_softmax(-1)
    return after
