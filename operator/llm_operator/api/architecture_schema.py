"""The schema of ``spec.model.architecture.config``: each key of each family, with its type and bounds. Pure.

A map of anything would let in what nobody can use, a nested value of any depth, and sizes that no count ends at.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from llm_operator.api.families import FAMILIES, KINDS_OF_KEYS, MAY_BE_NULL
from llm_operator.api.quantities import shown

Schema = dict[str, Any]

MOST_LAYERS, LARGEST_SIZE, LONGEST_WORD = 1024, 100_000_000, 64
LAYERS = ("num_hidden_layers", "n_layer")
MAY_BE_ZERO = frozenset({
    "attn_layer_offset", "expert_layer_offset", "first_k_dense_replace", "max_window_layers", "n_shared_experts",
    "num_mtp_layers", "num_nextn_predict_layers",
})  # fmt: skip


def size(name: str) -> Schema:
    """Of an integer with which the operator computes: every one of them counts something."""
    most = MOST_LAYERS if name in LAYERS else LARGEST_SIZE
    nullable = {"nullable": True} if name in MAY_BE_NULL else {}
    return {"type": "integer", "minimum": 0 if name in MAY_BE_ZERO else 1, "maximum": most, **nullable}


def sequence(items: Schema) -> Schema:
    """One for each layer, or for each dimension."""
    return {"type": "array", "maxItems": MOST_LAYERS, "items": items}


NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": LARGEST_SIZE}  # of a key that data preparation judges
WORD: Schema = {"type": "string", "maxLength": LONGEST_WORD}
ROPE: Schema = {
    "type": "object",
    "properties": {
        "rope_type": WORD,
        **dict.fromkeys(("rope_theta", "factor", "partial_rotary_factor", "attention_factor", "beta_fast", "beta_slow",
                         "low_freq_factor", "high_freq_factor"), NUMBER),
        "original_max_position_embeddings": size("original_max_position_embeddings"),
        **dict.fromkeys(("short_factor", "long_factor"), sequence(NUMBER)),
    },
}  # fmt: skip
# Keys whose default does not show their type.
TYPES: dict[str, Schema] = {
    **{name: size(name) for name in ("head_dim", "n_inner", "sliding_window")},
    "mlp_only_layers": sequence({"type": "integer", "minimum": 0, "maximum": MOST_LAYERS}),
    "rope_parameters": ROPE,
}


KINDS: dict[str, Schema] = {
    "boolean": {"type": "boolean"}, "integer": COUNT, "number": NUMBER, "string": WORD,
    "integers": sequence(COUNT), "numbers": sequence(NUMBER), "strings": sequence(WORD),
}  # fmt: skip


@cache
def config_schema() -> Schema:
    """An object with the keys of all families; which of them a family has, ``architecture_problems`` tells, or data
    preparation where families.json does not have the family.
    """
    found: dict[str, Schema] = {}
    for family in FAMILIES.values():
        for key, default in family.defaults.items():
            schema = TYPES.get(key) or schema_of(key, default)
            if found.get(key) != NUMBER:  # an integer is a number where another family has those
                found[key] = schema
        for alias, key in family.aliases.items():
            found.setdefault(alias, found[key])
    for kind, names in KINDS_OF_KEYS.items():
        for name in names:
            if name not in found or kind == "number":
                found[name] = KINDS[kind]
    return {"type": "object", "properties": dict(sorted(found.items()))}


def schema_of(key: str, default: Any) -> Schema:
    """Of values like this one. Raises ValueError where it shows no type: such a key belongs into TYPES."""
    match default:
        case bool():
            return {"type": "boolean"}
        case int():
            return size(key)
        case float():
            return NUMBER
        case str():
            return WORD
        case [first, *_]:
            return sequence(schema_of(key, first))
    raise ValueError(f"the type of {key} does not show in its default {default!r}")


def mismatches(schema: Schema, value: Any, path: str) -> Iterator[str]:
    """What the API server would say of a value, where there is no API server. None is left out, as it is there."""
    match schema["type"], value:
        case _, None:
            return
        case "boolean", bool():
            return
        case "number", int() | float() if not isinstance(value, bool):
            return
        case "integer", int() | float() if not isinstance(value, bool) and float(value).is_integer():
            if not schema["minimum"] <= value <= schema["maximum"]:
                yield f"{path}: {value} is not between {schema['minimum']} and {schema['maximum']}"
        case "string", str():
            if len(value) > schema["maxLength"]:
                yield f"{path}: {shown(value)} has more than {schema['maxLength']} characters"
        case "array", list():
            if len(value) > schema["maxItems"]:
                yield f"{path}: has {len(value)} items; write at most {schema['maxItems']}"
            for index, item in enumerate(value[: schema["maxItems"]]):
                yield from mismatches(schema["items"], item, f"{path}[{index}]")
        case "object", dict():
            for name, item in value.items():
                if name in schema["properties"]:
                    yield from mismatches(schema["properties"][name], item, f"{path}.{name}")
                else:
                    yield f"{path}.{name}: there is no such field; remove it or correct its name"
        case _:
            yield f"{path}: {shown(value)} is no {schema['type']}"
