"""What must hold of the keys of ``spec.model.architecture.config``; one that is left out has the family's default."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from llm_operator.api.families import FAMILIES
from llm_operator.api.quantities import shown
from llm_trainer.config import Architecture

PATH = "spec.model.architecture.config"
MOST, MOST_LAYERS = 10**9, 10_000
MAY_BE_ZERO = (
    "attn_layer_offset",
    "expert_layer_offset",
    "first_k_dense_replace",
    "n_shared_experts",
    "num_nextn_predict_layers",
)
MAY_BE_NULL = ("head_dim", "n_inner", "num_key_value_heads", "q_lora_rank")
MAY_BE_AUTO = ("mamba_dt_rank", "time_step_rank")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")  # how the families name them


def number_problems(architecture: Architecture) -> Iterator[str]:
    """Values with which nothing can be computed: neither a size, nor the other problems."""
    family = FAMILIES[architecture.family]
    for key, value in architecture.config.items():
        name = family.aliases.get(key, key)
        default = family.defaults.get(name)
        if name == "mlp_only_layers" and not isinstance(value, list):
            yield f"{PATH}.{key}: must be a list, not {shown(value)}"
        counts = name in MAY_BE_NULL or (isinstance(default, int) and not isinstance(default, bool))
        if not counts or name.endswith("_token_id"):
            continue
        null = value is None and name in MAY_BE_NULL and architecture.family != "mamba2"
        if null or (value == "auto" and name in MAY_BE_AUTO):
            continue
        least = 0 if default == 0 or name in MAY_BE_ZERO else 1
        most = MOST_LAYERS if name in ("num_hidden_layers", "n_layer") else MOST
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            yield f"{PATH}.{key}: must be a whole number from {least} to {most}, not {shown(value)}"


def architecture_problems(architecture: Architecture) -> Iterator[str]:
    config, family = architecture.config, FAMILIES[architecture.family]
    if "vocab_size" in config:
        yield f"{PATH}.vocab_size: follows from the tokenizer; remove it"
    for key in sorted(set(config) - set(family.keys)):
        near = get_close_matches(key, family.keys, n=1)
        hint = f"use {near[0]}" if near else "remove it"
        yield f"{PATH}.{key}: is no key of transformers' {architecture.family} configuration; {hint}"
    keys = family.resolve(config)
    if architecture.family == "llama":  # takes both from the number of heads where they are left out
        keys = {**keys, **{name: config.get(name) for name in ("num_key_value_heads", "head_dim")}}
    yield from expert_problems(keys)
    yield from division_problems(architecture.family, keys)
    yield from place_problems(keys)


def experts_of(architecture: Architecture) -> int:
    """Among which a router chooses; 0 in a family without experts."""
    keys = FAMILIES[architecture.family].resolve(architecture.config)
    return next((int(keys[name]) for name in EXPERTS if keys.get(name)), 0)


def expert_problems(keys: dict[str, Any]) -> Iterator[str]:
    chosen = keys.get("num_experts_per_tok")
    for name in EXPERTS:
        experts = keys.get(name)
        if isinstance(chosen, int) and isinstance(experts, int) and chosen > experts:
            yield f"{PATH}.num_experts_per_tok: {chosen} is above {name} {experts}; use at most {experts}"
    groups, limit = keys.get("n_group"), keys.get("topk_group")
    if isinstance(groups, int) and isinstance(limit, int) and limit > groups:
        yield f"{PATH}.topk_group: {limit} is above n_group {groups}; use at most {groups}"


def division_problems(family: str, keys: dict[str, Any]) -> Iterator[str]:
    """Each second key must divide the first."""
    pairs = [
        ("n_embd", "n_head"),
        ("num_attention_heads", "num_key_value_heads"),
        ("n_routed_experts", "n_group"),
        ("num_heads", "n_groups"),
    ]
    if family == "llama" or not keys.get("head_dim"):  # the width of a head follows from the model's
        pairs.append(("hidden_size", "num_attention_heads"))
    for whole, part in pairs:
        size, count = keys.get(whole), keys.get(part)
        if isinstance(size, int) and isinstance(count, int) and (count < 1 or size % count):
            yield f"{PATH}.{part}: {whole} {size} is not divisible by {count}; use a divisor"
    if family == "mamba2" and keys["expand"] * keys["hidden_size"] != keys["num_heads"] * keys["head_dim"]:
        yield (
            f"{PATH}.num_heads: {keys['num_heads']} × head_dim {keys['head_dim']} is not expand {keys['expand']} × "
            f"hidden_size {keys['hidden_size']}; use {keys['expand'] * keys['hidden_size'] / keys['head_dim']:g}"
        )


def place_problems(keys: dict[str, Any]) -> Iterator[str]:
    """Where in a period of Jamba's layers attention and experts stand."""
    for kind in ("attn", "expert"):
        offset, period = keys.get(f"{kind}_layer_offset"), keys.get(f"{kind}_layer_period")
        if isinstance(offset, int) and isinstance(period, int) and offset >= period:
            yield f"{PATH}.{kind}_layer_offset: {offset} is beyond {kind}_layer_period {period}; use less"
