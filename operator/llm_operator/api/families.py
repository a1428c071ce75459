"""How large a model is that an architecture describes: parameters and arithmetic. Pure, without torch.

What transformers' configuration classes say is in families.json and transformers.json, written by tools/families.py.
Of a family that is in the second alone, data preparation tells the size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_trainer.config import Architecture

# Says something else than leaving it out: queries are not compressed, attention sees all of a row.
MAY_BE_NULL = frozenset({"q_lora_rank", "sliding_window"})


@dataclass(frozen=True)
class Family:
    """Keys of a family's configuration with their defaults, and other names of some of them."""

    defaults: Mapping[str, Any]
    aliases: Mapping[str, str]

    @property
    def keys(self) -> list[str]:
        return [*self.defaults, *self.aliases]

    def resolve(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration with its defaults, every key by its own name."""
        return {**self.defaults, **{self.aliases.get(key, key): value for key, value in without_nulls(config).items()}}


def without_nulls(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without nulls, which the API server drops."""
    return {key: value for key, value in config.items() if value is not None or key in MAY_BE_NULL}


def written(file: str) -> Any:
    return json.loads((Path(__file__).parent / file).read_text())


FAMILIES = {name: Family(**told) for name, told in written("families.json").items()}
CLASSES: dict[str, str] = written("transformers.json")["classes"]  # of every family that can be trained from scratch
KINDS_OF_KEYS: dict[str, list[str]] = written("transformers.json")["keys"]  # of them all, such as integer: [...]


def known_keys(family: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """With the defaults of a family where they are written down; else what is given alone."""
    return FAMILIES[family].resolve(config) if family in FAMILIES else without_nulls(config)


@dataclass(frozen=True)
class ModelSize:
    """Parameters; ``active`` are those that one token uses. ``embedding``: looked up, not multiplied."""

    total: int
    active: int
    embedding: int
    attention_width: int  # heads × head size, summed over the layers: what attention to one position costs
    width: int  # of the hidden state
    head: int = 0  # of an output matrix of its own; 0 where it is the embedding
    routed: int = 0  # of all experts among which a router chooses

    @property
    def scoring(self) -> int:
        """Parameters of the same model with a head that gives one number: a reward model, or a critic."""
        return self.total - self.head + self.width

    def training_flops_per_token(self, length: int) -> float:
        """6 for each multiplied parameter, 12 for each product of attention; PaLM (Chowdhery et al. 2022), app. B."""
        return 6 * (self.active - self.embedding) + 12 * self.attention_width * length


def model_size(architecture: Architecture, vocabulary: int) -> ModelSize | None:
    """``vocabulary``: tokens, of the tokenizer. None of a family that has no formula here."""
    return size_by_formula(architecture, vocabulary) if architecture.family in FAMILIES else None


def size_by_formula(architecture: Architecture, vocabulary: int) -> ModelSize:
    """Of one of FAMILIES."""
    keys = FAMILIES[architecture.family].resolve(architecture.config)
    sizes = {"gpt2": gpt2_size, "mamba": mamba_size, "mamba2": mamba_size, "jamba": jamba_size}
    size = sizes.get(architecture.family, decoder_size)
    return size(architecture.family, keys, without_nulls(architecture.config), vocabulary)


def gpt2_size(_: str, keys: dict[str, Any], given: dict[str, Any], vocabulary: int) -> ModelSize:
    width, layers = keys["n_embd"], keys["n_layer"]
    inner = keys["n_inner"] or 4 * width
    layer = 4 * width * width + 4 * width + 2 * width * inner + inner + width + 4 * width
    embedding = vocabulary * width
    positions = keys["n_positions"] * width
    head = 0 if keys["tie_word_embeddings"] else embedding
    total = embedding + positions + layers * layer + 2 * width + head
    looked_up = positions + (embedding if head else 0)  # a tied embedding is also the output's matrix
    return ModelSize(total, total, looked_up, layers * width, width, head)


def decoder_size(family: str, keys: dict[str, Any], given: dict[str, Any], vocabulary: int) -> ModelSize:
    """The families whose layers are attention and a gated or expert MLP, each behind an RMS norm."""
    width, layers = keys["hidden_size"], keys["num_hidden_layers"]
    attention, head_width = (
        latent_attention(keys) if family == "deepseek_v3" else grouped_attention(family, keys, given)
    )
    dense = 3 * width * keys["intermediate_size"] + (
        2 * keys["intermediate_size"] + width if keys.get("mlp_bias") else 0
    )
    with_experts = expert_layers(family, keys, layers)
    mlps = dense * (layers - with_experts)
    active_mlps, routed = mlps, 0
    if with_experts:
        experts, expert, always = expert_sizes(family, keys)
        routed = with_experts * experts * expert
        mlps += routed + with_experts * always
        active_mlps += with_experts * (keys["num_experts_per_tok"] * expert + always)
    embedding = vocabulary * width
    head = 0 if keys["tie_word_embeddings"] else embedding
    rest = embedding + head + layers * (attention + 2 * width) + width
    attended = layers * head_width
    return ModelSize(rest + mlps, rest + active_mlps, embedding if head else 0, attended, width, head, routed)


def grouped_attention(family: str, keys: dict[str, Any], given: dict[str, Any]) -> tuple[int, int]:
    """Parameters of a layer's attention, and heads × head size."""
    width, heads = keys["hidden_size"], keys["num_attention_heads"]
    # Llama takes both from the number of heads where they are left out
    shared = (given.get("num_key_value_heads") or heads) if family == "llama" else keys["num_key_value_heads"] or heads
    size = keys.get("head_dim") if family == "qwen3" else given.get("head_dim")
    size = size or width // heads
    parameters = 2 * width * heads * size + 2 * width * shared * size
    if keys.get("attention_bias"):
        parameters += (heads + 2 * shared) * size + width
    if family.startswith("qwen3"):
        parameters += 2 * size  # norms of query and key
    return parameters, heads * size


def latent_attention(keys: dict[str, Any]) -> tuple[int, int]:
    """DeepSeek's multi-head latent attention."""
    width, heads, rank, key_rank = (
        keys[name] for name in ("hidden_size", "num_attention_heads", "q_lora_rank", "kv_lora_rank")
    )
    rope, plain, value = (keys[name] for name in ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"))
    query = heads * (rope + plain)
    parameters = width * query if rank is None else width * rank + rank + rank * query
    parameters += width * (key_rank + rope) + key_rank + key_rank * heads * (plain + value) + heads * value * width
    if keys.get("attention_bias"):
        parameters += (rank or 0) + key_rank + rope + width
    return parameters, query


def expert_layers(family: str, keys: dict[str, Any], layers: int) -> int:
    """How many of the layers have experts; no loop over layers, what a size costs does not grow with it."""
    match family:
        case "mixtral":
            return layers
        case "qwen3_moe":
            step = keys["decoder_sparse_step"]
            sparse = range(step - 1, layers, step)
            return len(sparse) - sum(layer in sparse for layer in set(keys["mlp_only_layers"]))
        case "deepseek_v3":
            return max(0, layers - int(keys["first_k_dense_replace"]))
    return 0


def in_period(layers: int, period: int, offset: int) -> int:
    """How many layers stand at this offset of a period."""
    return len(range(offset, layers, period)) if offset < period else 0


def expert_sizes(family: str, keys: dict[str, Any]) -> tuple[int, int, int]:
    """Experts, parameters of one, and those of the layer that every token uses: router and shared experts."""
    width = keys["hidden_size"]
    if family == "deepseek_v3":
        experts, expert = keys["n_routed_experts"], 3 * width * keys["moe_intermediate_size"]
        return experts, expert, experts * width + keys["n_shared_experts"] * expert
    inner = keys["intermediate_size"] if family == "mixtral" else keys["moe_intermediate_size"]
    experts = keys["num_local_experts"]
    return experts, 3 * width * inner, experts * width


def mamba_size(family: str, keys: dict[str, Any], given: dict[str, Any], vocabulary: int) -> ModelSize:
    """Gu and Dao 2023; Dao and Gu 2024. What the state costs per token is small beside the products and left out."""
    width, layers = keys["hidden_size"], keys["num_hidden_layers"]
    layer = mamba2_mixer(keys) if family == "mamba2" else mamba_mixer(width, keys, given)
    embedding = vocabulary * width
    head = 0 if keys["tie_word_embeddings"] else embedding
    total = embedding + head + layers * (layer + width) + width
    return ModelSize(total, total, embedding if head else 0, 0, width, head)


def mamba_mixer(width: int, keys: dict[str, Any], given: dict[str, Any]) -> int:
    inner, state = keys["expand"] * width, keys["state_size"]
    rank = given.get("time_step_rank", "auto")
    rank = -(-width // 16) if rank == "auto" else rank
    biases = 2 * inner + width if keys["use_bias"] else 0
    convolution = inner * (keys["conv_kernel"] + bool(keys["use_conv_bias"]))
    return int(mamba_parameters(width, inner, state, rank) + convolution + biases)


def mamba_parameters(width: int, inner: int, state: int, rank: int) -> int:
    """Projections in, of the step and out, and the state's own."""
    return 3 * width * inner + inner * (rank + 2 * state) + rank * inner + inner + inner * state + inner


def mamba2_mixer(keys: dict[str, Any]) -> int:
    width, heads = keys["hidden_size"], keys["num_heads"]
    inner = int(keys["expand"] * width)
    convolved = inner + 2 * keys["n_groups"] * keys["state_size"]
    into = width * (inner + convolved + heads)
    biases = inner + convolved + heads + width if keys["use_bias"] else 0
    convolution = convolved * (keys["conv_kernel"] + bool(keys["use_conv_bias"]))
    return int(into + convolution + 3 * heads + inner + inner * width + biases)


def jamba_size(_: str, keys: dict[str, Any], given: dict[str, Any], vocabulary: int) -> ModelSize:
    """Lieber et al. 2024: attention in one layer of a period, Mamba in the others; experts in some of both."""
    width, layers, heads = keys["hidden_size"], keys["num_hidden_layers"], keys["num_attention_heads"]
    size = width // heads
    attention = 2 * width * heads * size + 2 * width * (keys["num_key_value_heads"] or heads) * size
    inner, state = keys["mamba_expand"] * width, keys["mamba_d_state"]
    rank = given.get("mamba_dt_rank", "auto")
    rank = -(-width // 16) if rank == "auto" else rank
    mamba = mamba_parameters(width, inner, state, rank) + rank + 2 * state  # with norms of step, B and C
    mamba += inner * (keys["mamba_d_conv"] + bool(keys["mamba_conv_bias"]))
    mamba += 2 * inner + width if keys["mamba_proj_bias"] else 0
    expert, experts = 3 * width * keys["intermediate_size"], keys["num_experts"]
    attending = in_period(layers, keys["attn_layer_period"], keys["attn_layer_offset"])
    routed = in_period(layers, keys["expert_layer_period"], keys["expert_layer_offset"]) if experts > 1 else 0
    common = attending * attention + (layers - attending) * mamba + layers * 2 * width + routed * experts * width
    all_routed, plain = routed * experts * expert, (layers - routed) * expert
    total = common + all_routed + plain
    active = common + routed * keys["num_experts_per_tok"] * expert + plain
    embedding = vocabulary * width
    head = 0 if keys["tie_word_embeddings"] else embedding
    rest = embedding + head + width
    attended = attending * heads * size
    return ModelSize(total + rest, active + rest, embedding if head else 0, attended, width, head, all_routed)
