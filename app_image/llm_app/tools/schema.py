"""What a model may write as the arguments of a tool: a JSON Schema made strict, and the same as a regular expression.

VLLM writes by a regular expression with each of its backends, whatever the model. A schema alone would not do: by its
grammar strings, numbers and the space between them have no end, so that a model which repeats itself writes until it
is cut, and what is cut is no JSON. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]
MOST_DEPTH, MOST_PROPERTIES, MOST_CHARACTERS = 5, 32, 32_768
MOST_NODES = 2000  # what each level refers to ten times is ten times as much at the next
STRING, ARRAY, DIGITS, DECIMALS = 256, 8, 12, 6  # where a schema says nothing
MOST_STRING, MOST_ARRAY = 2048, 64
TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")
IGNORED = ("title", "description", "default", "examples", "$schema", "deprecated", "format")
KNOWN = {
    "type", "enum", "const", "properties", "required", "items", "anyOf", "oneOf", "minimum", "maximum", "minLength",
    "maxLength", "minItems", "maxItems", "pattern", "additionalProperties", "$defs", "definitions", *IGNORED,
}  # fmt: skip
# Ranges of what may be, each of one length and one kind of first byte in UTF-8: of a complement, and of a range over
# several kinds, xgrammar makes bytes that are no UTF-8, or finds no way on.
CHARACTER = (
    r'(?:[ !#-\[\]-~\u00a0-\u07ff]|[\u0800-\u0fff]|[\u1000-\ucfff]|[\ud000-\ud7ff]|[\uf900-\uffef]|\\["\\/bfnrt])'
)
PLAIN_PATTERN = re.compile(r"^\^([A-Za-z0-9 _.:/@#%&=+,;{}()\[\]|?*-]*)\$$")


class SchemaError(ValueError):
    """A schema that can't be kept to. The message begins with the place in it."""


@dataclass
class Root:
    """In which references are looked up, and how many parts may still be made of it."""

    schema: Schema
    left: int = MOST_NODES


def strict(schema: Schema) -> dict[str, Any]:
    """The same, closed and with all bounds: what may be left out must be null. Raises SchemaError.

    References to definitions of its own are resolved.
    """
    if schema.get("type", "object") != "object":
        raise SchemaError('must be of "type": "object", each of whose properties is an argument')
    return node({**schema, "type": "object"}, Root(schema), "", 0)


def node(schema: object, root: Root, path: str, depth: int) -> dict[str, Any]:
    """Raises SchemaError."""
    root.left -= 1
    if root.left < 0:
        raise SchemaError(f"{path}: has more than {MOST_NODES} parts, with all that it refers to; make it smaller")
    if not isinstance(schema, Mapping):
        raise SchemaError(f"{path or 'it'}: must be an object")
    if depth > MOST_DEPTH:
        raise SchemaError(f"{path}: is more than {MOST_DEPTH} deep; make it flatter")
    if "$ref" in schema:
        return node(referred(schema["$ref"], root, path), root, path, depth + 1)
    if unknown := [key for key in schema if key not in KNOWN]:
        raise SchemaError(f"{path}{'.' if path else ''}{unknown[0]}: is not taken; leave it out")
    said = {key: schema[key] for key in ("description",) if isinstance(schema.get(key), str)}
    if "const" in schema or "enum" in schema:
        return said | {"enum": values(schema, path)}
    choices = schema.get("anyOf") or schema.get("oneOf")
    kinds = schema.get("type")
    if isinstance(kinds, list):
        choices = [{**schema, "type": kind} for kind in kinds]
    if choices:
        if not isinstance(choices, list):
            raise SchemaError(f"{path}: anyOf must be a list")
        return said | {"anyOf": [node(one, root, path, depth + 1) for one in choices]}
    if kinds not in TYPES:
        raise SchemaError(f"{path}: has the type {kinds!r}; name one of {', '.join(TYPES)}, or an enum")
    return said | {"type": kinds} | typed(str(kinds), schema, root, path, depth)


def referred(name: object, root: Root, path: str) -> object:
    parts = str(name).removeprefix("#/").split("/")
    found: object = root.schema
    for part in parts if str(name).startswith("#/") else ("",):
        found = found.get(part) if isinstance(found, Mapping) else None
    if found is None:
        raise SchemaError(f"{path}: $ref {name!r} is no definition of this schema")
    return found


def values(schema: Schema, path: str) -> list[Any]:
    found = [schema["const"]] if "const" in schema else schema["enum"]
    plain = isinstance(found, list) and all(one is None or isinstance(one, str | int | float) for one in found)
    if not plain or not 0 < len(found) <= 256:
        raise SchemaError(f"{path}: enum must have 1 to 256 strings, numbers, booleans or nulls")
    return list(found)


def typed(kind: str, schema: Schema, root: Root, path: str, depth: int) -> dict[str, Any]:
    if kind == "object":
        return properties(schema, root, path, depth)
    if kind == "array":
        low, high = bounds(schema, path, "minItems", "maxItems", ARRAY, MOST_ARRAY)
        return {
            "items": node(schema.get("items"), root, f"{path}[]", depth + 1),
            "minItems": low,
            "maxItems": high,
        }
    if kind == "string":
        low, high = bounds(schema, path, "minLength", "maxLength", STRING, MOST_STRING)
        pattern = schema.get("pattern")
        if pattern is None:
            return {"minLength": low, "maxLength": high}
        compiled(str(pattern), path)
        return {"pattern": pattern, "minLength": low, "maxLength": high}
    if kind in ("integer", "number"):
        most = 10**DIGITS - 1
        low, high = schema.get("minimum", -most), schema.get("maximum", most)
        if not all(isinstance(one, int | float) for one in (low, high)) or low > high:
            raise SchemaError(f"{path}: minimum {low} and maximum {high} must be numbers in this order")
        return {"minimum": max(low, -most), "maximum": min(high, most)}
    return {}


def compiled(pattern: str, path: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise SchemaError(f"{path}.pattern: {error}") from None


def bounds(schema: Schema, path: str, low: str, high: str, default: int, most: int) -> tuple[int, int]:
    least, greatest = schema.get(low, 0), schema.get(high)
    greatest = max(default, least) if greatest is None and isinstance(least, int) else greatest
    if not (isinstance(least, int) and isinstance(greatest, int) and 0 <= least <= greatest):
        raise SchemaError(f"{path}: {low} and {high} must be whole numbers in this order")
    if least > most:
        raise SchemaError(f"{path}: {low} may be {most} at most")
    return least, min(greatest, most)


def properties(schema: Schema, root: Root, path: str, depth: int) -> dict[str, Any]:
    given = schema.get("properties") or {}
    if not isinstance(given, Mapping) or len(given) > MOST_PROPERTIES:
        raise SchemaError(f"{path or 'it'}: properties must be an object of {MOST_PROPERTIES} at most")
    if schema.get("additionalProperties") not in (None, False):
        raise SchemaError(f"{path or 'it'}: additionalProperties must be false, as a model writes what is listed alone")
    needed = schema.get("required") or []
    if unknown := [name for name in needed if name not in given]:
        raise SchemaError(f"{path or 'it'}: required names {unknown[0]!r}, which is none of its properties")
    made = {}
    for name, one in given.items():
        below = node(one, root, f"{path}.{name}" if path else str(name), depth + 1)
        made[name] = below if name in needed or nullable(below) else {"anyOf": [below, {"type": "null"}]}
    return {"properties": made, "required": list(made), "additionalProperties": False}


def nullable(schema: Schema) -> bool:
    choices = schema.get("anyOf", [schema])
    return any(one.get("type") == "null" or None in one.get("enum", ()) for one in choices)


def expression(schema: Schema) -> str:
    """Of the JSON, without spaces, that obeys a strict schema. Raises SchemaError for one that is too large."""
    made = written(schema)
    if len(made) > MOST_CHARACTERS:
        raise SchemaError("is too large; have fewer properties, or shorter enums")
    return made


def written(schema: Schema) -> str:
    if "enum" in schema:
        return either(literal(one) for one in schema["enum"])
    if "anyOf" in schema:
        return either(map(written, schema["anyOf"]))
    match schema["type"]:
        case "object":
            return (
                r"\{"
                + ",".join(f"{literal(name)}:{written(one)}" for name, one in schema["properties"].items())
                + r"\}"
            )
        case "array":
            return items(written(schema["items"]), schema["minItems"], schema["maxItems"])
        case "string":
            if found := PLAIN_PATTERN.match(schema.get("pattern", "")):
                return f'"(?:{found[1]})"'
            return f'"{CHARACTER}{{{schema["minLength"]},{schema["maxLength"]}}}"'
        case "integer":
            return whole(schema["minimum"], schema["maximum"])
        case "number":
            return decimal(schema["minimum"], schema["maximum"])
        case "boolean":
            return "(?:true|false)"
    return "null"


def literal(value: Any) -> str:
    return re.sub(r"([\\.^$*+?{}\[\]|()/-])", r"\\\1", json.dumps(value, ensure_ascii=False))


def either(choices: Iterator[str]) -> str:
    return f"(?:{'|'.join(dict.fromkeys(choices))})"


def items(one: str, least: int, most: int) -> str:
    if most == 0:
        return r"\[\]"
    made = rf"{one}(?:,{one}){{{max(least - 1, 0)},{most - 1}}}"
    return rf"\[{made}\]" if least else rf"\[(?:{made})?\]"


def whole(low: float, high: float) -> str:
    """Whole numbers of a range."""
    least, most = -int(-low // 1), int(high // 1)
    if least > most:
        raise SchemaError(f"no whole number is between {low} and {high}")
    choices = [*(f"-{one}" for one in span(max(1, -most), -least))] if least < 0 else []
    return either(iter([*choices, *(span(max(0, least), most) if most >= 0 else ())]))


def decimal(low: float, high: float) -> str:
    """Numbers of a range: whole ones of it, and with decimals what lies between two of them."""
    least, most = -int(-low // 1), int(high // 1)
    if least > most:
        raise SchemaError(f"no whole number is between {low} and {high}; widen the range")
    choices = [whole(least, most)]
    part = rf"\.[0-9]{{1,{DECIMALS}}}"
    if most - 1 >= max(0, least):
        choices.append(either(span(max(0, least), most - 1)) + part)
    if least < 0 and -least - 1 >= max(0, -most):
        choices.append("-" + either(span(max(0, -most), -least - 1)) + part)
    return either(iter(choices))


def span(low: int, high: int) -> Iterator[str]:
    """Expressions of the whole numbers from ``low`` ≥ 0 to ``high``."""
    while low <= high:
        step = 1  # the largest block of a power of ten that begins here and does not go beyond
        while (
            low
            and low % (step * 10) == 0
            and low + step * 10 - 1 <= high
            and len(str(low)) == len(str(low + step * 10 - 1))
        ):
            step *= 10
        first = low // step
        last = min(first - first % 10 + 9, (high + 1) // step - 1)
        digits = f"[{first % 10}-{last % 10}]" if last > first else str(first % 10)
        zeros = len(str(step)) - 1
        yield (str(first // 10) if first >= 10 else "") + digits + (f"[0-9]{{{zeros}}}" if zeros else "")
        low = (last + 1) * step


def without_nulls(arguments: Mapping[str, Any], given: Schema) -> dict[str, Any]:
    """What a model left out stands as null in what it wrote. ``given``: the schema as it was before it was strict."""
    made: dict[str, Any] = pruned(arguments, given, Root(given))
    return made


def pruned(value: Any, schema: object, root: Root) -> Any:
    while isinstance(schema, Mapping) and "$ref" in schema:
        schema = referred(schema["$ref"], root, "")
    if not isinstance(schema, Mapping):
        return value
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        for choice in choices if isinstance(value, dict | list) else ():
            value = pruned(value, choice, root)
        return value
    if isinstance(value, list):
        return [pruned(one, schema.get("items"), root) for one in value]
    known = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(known, Mapping):
        return value
    needed = schema.get("required") or ()
    kept = {name: one for name, one in value.items() if one is not None or name in needed or name not in known}
    return {name: pruned(one, known.get(name), root) for name, one in kept.items()}
