"""For hypothesis: values that the schema of a CRD allows, and specs that differ from a right one in a few places.

The API server takes all of them but for its CEL rules, so any of them may reach the operator.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

Schema = dict[str, Any]

CRDS = Path(__file__).parents[1] / "crds"
QUANTITIES = st.sampled_from([0, 1, 8, 0.5, "0", "1", "500m", "8", "4Gi", "1e3", ".5", "16", "100E", "-1", "1Q"])
MOST_EXTRA = 3  # properties or items beyond the required ones: each adds a subtree


def spec_schema(plural: str) -> Schema:
    """Of an object's spec, as the API server has it."""
    crd = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    found: Schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """What the schema allows, but for ``x-kubernetes-validations``."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object":
            return objects(schema)
        case "array":
            few = schema.get("minItems", 0) + MOST_EXTRA
            size = {"min_size": schema.get("minItems", 0), "max_size": min(few, schema.get("maxItems", few))}
            return st.lists(st.deferred(lambda: values(schema["items"])), **size)
        case "string":
            return strings(schema)
        case "integer":
            return st.integers(schema.get("minimum"), schema.get("maximum"))
        case "number":
            return numbers(schema)
        case "boolean":
            return st.booleans()
    return QUANTITIES


@st.composite
def objects(draw: st.DrawFn, schema: Schema) -> Schema:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    made = {name: draw(values(properties[name])) for name in required}
    if optional := sorted(set(properties) - set(required)):
        for name in draw(st.lists(st.sampled_from(optional), max_size=MOST_EXTRA, unique=True)):
            made[name] = draw(values(properties[name]))
    if isinstance(more := schema.get("additionalProperties"), dict):
        names = st.sampled_from(["cpu", "memory", "nvidia.com/gpu", "amd.com/gpu", "example.com/card", "a/b", "app"])
        made |= draw(st.dictionaries(names, values(more), max_size=MOST_EXTRA))
    return made


def strings(schema: Schema) -> st.SearchStrategy[str]:
    made: st.SearchStrategy[str]
    if pattern := str(schema.get("pattern", "")):
        made = st.from_regex(pattern, fullmatch=True)
    else:
        made = st.one_of(st.sampled_from(["a", "models", "base", "chat"]), st.text(max_size=30))
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 1 << 20)
    return made.filter(lambda text: shortest <= len(text) <= longest)


def numbers(schema: Schema) -> st.SearchStrategy[float]:
    return st.floats(
        schema.get("minimum"),
        schema.get("maximum"),
        exclude_min=bool(schema.get("exclusiveMinimum")) and "minimum" in schema,
        exclude_max=bool(schema.get("exclusiveMaximum")) and "maximum" in schema,
        allow_nan=False,
        allow_infinity=False,
    )


@st.composite
def changed_specs(draw: st.DrawFn, bases: list[Schema], schema: Schema) -> Schema:
    """One of the right specs with a few changes, each of which the schema allows."""
    made = copy.deepcopy(draw(st.sampled_from(bases)))
    for _ in range(draw(st.integers(0, 3))):
        change(draw, made, schema)
    return made


def change(draw: st.DrawFn, at: Any, schema: Schema) -> None:
    """Somewhere below an object or a list: set, remove, repeat."""
    if isinstance(at, list):
        index = draw(st.integers(0, len(at)))
        if index == len(at) or not isinstance(at[index], (dict, list)):
            at.insert(index, draw(values(schema["items"])))
        elif draw(st.booleans()):
            change(draw, at[index], schema["items"])
        elif len(at) > schema.get("minItems", 0):
            del at[index]
        return
    properties = schema.get("properties", {})
    if not properties:
        at.update(draw(objects(schema)))
        return
    name = draw(st.sampled_from(sorted(properties)))
    if name in at and isinstance(at[name], (dict, list)) and draw(st.integers(0, 3)):
        change(draw, at[name], properties[name])
    elif name in at and name not in schema.get("required", []) and draw(st.booleans()):
        del at[name]
    else:
        at[name] = draw(values(properties[name]))
