"""What must hold of the keys of ``spec.model.architecture.config``; one that is left out has the family's default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from heapq import nsmallest
from typing import Any

from llm_operator.api.architecture_schema import config_schema, mismatches
from llm_operator.api.families import CLASSES, FAMILIES, known_keys
from llm_operator.api.quantities import shown
from llm_trainer.config import Architecture

PATH = "spec.model.architecture.config"
OF_THE_TOKENIZER = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
MOST_UNKNOWN = 32  # that are told: what is near to a key is looked for, and a stored object may have any number
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")  # how the families name them


def architecture_problems(architecture: Architecture) -> Iterator[str]:
    """Of a family that is not in families.json, data preparation says which keys are its own and what they make."""
    config, family = architecture.config, architecture.family
    if family not in CLASSES:
        near = get_close_matches(family, CLASSES, n=3) or ["llama", "qwen3", "mistral"]
        yield (
            f"{PATH.removesuffix('config')}family: {shown(family)} is no language model that transformers makes from "
            f"a configuration; use one of its {len(CLASSES)}, such as {', '.join(near)}"
        )
        return
    known = config_schema()["properties"]
    yield from unknown_keys(family, config, FAMILIES[family].keys if family in FAMILIES else list(known))
    wrong = [text for key in config if key in known for text in mismatches(known[key], config[key], f"{PATH}.{key}")]
    yield from wrong
    if wrong:
        return  # nothing can be said of sizes that are none
    keys = known_keys(family, config)
    if family == "llama":  # takes both from the number of heads where they are left out
        keys = {**keys, **{name: config.get(name) for name in ("num_key_value_heads", "head_dim")}}
    yield from expert_problems(keys)
    yield from division_problems(family, keys)
    yield from place_problems(keys)


def unknown_keys(family: str, config: Mapping[str, Any], known: Sequence[str]) -> Iterator[str]:
    unknown = set(config) - set(known)
    for key in nsmallest(MOST_UNKNOWN, unknown):
        if key in OF_THE_TOKENIZER:
            yield f"{PATH}.{key}: follows from the tokenizer; remove it"
            continue
        near = get_close_matches(key, known, n=1)
        hint = f"use {near[0]}" if near else "remove it"
        yield f"{PATH}.{key}: is no key that shapes a {family} model of transformers; {hint}"
    if len(unknown) > MOST_UNKNOWN:
        yield f"{PATH}: has {len(unknown)} keys that shape no {family} model; remove them"


def experts_of(architecture: Architecture) -> int:
    """Among which a router chooses; 0 in a family without experts."""
    keys = known_keys(architecture.family, architecture.config)
    return next((keys[name] for name in EXPERTS if isinstance(keys.get(name), int)), 0)


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
    pairs = [("num_attention_heads", "num_key_value_heads")]
    if family in FAMILIES:
        pairs += [("n_embd", "n_head"), ("n_routed_experts", "n_group"), ("num_heads", "n_groups")]
    if family == "llama" or (family in FAMILIES and not keys.get("head_dim")):  # the width of a head follows
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
