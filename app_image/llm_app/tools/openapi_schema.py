"""Schemas of an OpenAPI document, 3.0 and 3.1, in the keywords that ``tools/schema.py`` keeps to. Pure.

References are resolved, each to a definition of the document itself. How much they make of it is bounded: what each
names twice doubles with every level.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_app.tools.schema import MOST_DEPTH, MOST_NODES, PLAIN_PATTERN, Root, SchemaError, node

KEPT = ("type", "enum", "const", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum")
DESCRIPTION_LENGTH = 512
TYPES_OF = {"properties": "object", "additionalProperties": "object", "items": "array", "pattern": "string"}


class Unkeepable(ValueError):  # noqa: N818 -- of what may be left out it is no error
    """What a model can't be held to. The message begins with the place."""


class Schemas:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._left = MOST_NODES

    def resolved(self, value: Any, path: str) -> Mapping[str, Any]:
        """What a parameter or a body is, or what it refers to. Raises Unkeepable."""
        seen: list[str] = []
        while isinstance(value, Mapping) and isinstance(reference := value.get("$ref"), str):
            value = self._at(reference, path, seen)
            seen.append(reference)
        if not isinstance(value, Mapping):
            raise Unkeepable(f"{path}: must be an object")
        return value

    def _at(self, reference: str, path: str, seen: list[str]) -> Any:
        if reference in seen:
            raise Unkeepable(f"{path}: {reference} refers to itself")
        if not reference.startswith("#/"):
            raise Unkeepable(f"{path}: $ref {reference!r} is of another document, which is not read")
        found: Any = self._document
        for part in reference[2:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is None:
            raise Unkeepable(f"{path}: $ref {reference!r} leads to nothing")
        return found

    def argument(self, schema: Any, path: str, depth: int = 1, seen: tuple[str, ...] = ()) -> dict[str, Any]:
        """What a model can be held to, so many levels deep. Raises Unkeepable."""
        made = self.plain(schema, path, depth, seen)
        try:
            node(made, Root(made), path, depth)
        except SchemaError as error:
            raise Unkeepable(str(error)) from None
        return made

    def plain(self, schema: Any, path: str, depth: int, seen: tuple[str, ...]) -> dict[str, Any]:
        self._left -= 1
        if self._left < 0:
            raise Unkeepable(f"{path}: has more than {MOST_NODES} parts, with all that it refers to")
        if not isinstance(schema, Mapping):
            raise Unkeepable(f"{path}: must be an object")
        if depth > MOST_DEPTH:
            raise Unkeepable(f"{path}: is more than {MOST_DEPTH} deep; make it flatter")
        if isinstance(reference := schema.get("$ref"), str):
            found = self._at(reference, path, [*seen])
            beside = {key: value for key, value in schema.items() if key == "description"}
            return {**self.plain(found, path, depth, (*seen, reference)), **texts(beside)}
        if "allOf" in schema:
            return self._joined(schema, path, depth, seen)
        if "not" in schema or "if" in schema:
            raise Unkeepable(f"{path}: not and if are not taken")
        choices = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(choices, list) and choices:
            made = [self.plain(one, f"{path}[{at}]", depth + 1, seen) for at, one in enumerate(choices)]
            return {**texts(schema), "anyOf": [*made, *([{"type": "null"}] if schema.get("nullable") is True else [])]}
        return self._simple(schema, path, depth, seen)

    def _joined(self, schema: Mapping[str, Any], path: str, depth: int, seen: tuple[str, ...]) -> dict[str, Any]:
        """AllOf: one of any kind, or objects whose properties are put together."""
        parts = (
            [one for one in schema["allOf"] if isinstance(one, Mapping)] if isinstance(schema["allOf"], list) else []
        )
        described = [one for one in parts if {*one} - {"required", "description"}]
        own = {key: value for key, value in schema.items() if key not in ("allOf", "description", "nullable")}
        made = [self.plain(one, f"{path}[{at}]", depth, seen) for at, one in enumerate(described)]
        if {"properties", "required", "type"} & own.keys():
            beside = {"type": "object", "properties": {}, "additionalProperties": False, **own}
            made.append(self._simple(beside, path, depth, seen))
        if len(made) == 1:
            return {**made[0], **texts(schema)}
        if not made or any(one.get("type") != "object" for one in made):
            raise Unkeepable(f"{path}: allOf is taken of objects, or of one alone")
        joined: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
        for one in made:
            joined["properties"] |= one["properties"]
        # one part may require what another describes
        named = [name for one in (*made, schema, *parts) for name in listed(one.get("required"))]
        joined["required"] = [name for name in dict.fromkeys(named) if name in joined["properties"]]
        return joined | texts(schema)

    def _simple(self, schema: Mapping[str, Any], path: str, depth: int, seen: tuple[str, ...]) -> dict[str, Any]:
        kinds = schema.get("type")
        if kinds is None:
            kinds = next((kind for key, kind in TYPES_OF.items() if key in schema), None)
        if isinstance(kinds, list):
            each = [kind for kind in kinds if isinstance(kind, str)]
            made = [self._simple({**schema, "type": kind}, path, depth + (len(each) > 1), seen) for kind in each]
            return made[0] if len(made) == 1 else {"anyOf": made}
        kept = {key: schema[key] for key in KEPT if key in schema} | texts(schema)
        if kinds is None and not {"enum", "const"} & kept.keys():
            raise Unkeepable(f"{path}: has no type, so any value would do")
        if kinds is not None:
            kept["type"] = kinds
        if kinds in ("integer", "number"):
            kept |= exclusive(schema, kinds, path)
        if kinds == "string" and isinstance(pattern := schema.get("pattern"), str) and PLAIN_PATTERN.fullmatch(pattern):
            kept["pattern"] = pattern  # of another, which may take any time, the server itself must judge
        if kinds == "array":
            kept["items"] = self.plain(schema.get("items"), f"{path}[]", depth + 1, seen)
        if kinds == "object" and not {"enum", "const"} & kept.keys():
            kept |= self._object(schema, path, depth, seen)
        return {"anyOf": [kept, {"type": "null"}]} if schema.get("nullable") is True else kept

    def _object(self, schema: Mapping[str, Any], path: str, depth: int, seen: tuple[str, ...]) -> dict[str, Any]:
        given, needed = schema.get("properties") or {}, listed(schema.get("required"))
        if not isinstance(given, Mapping):
            raise Unkeepable(f"{path}: properties must be an object")
        if not given and schema.get("additionalProperties", True) is not False:
            raise Unkeepable(f"{path}: is an object of any keys; name its properties")
        made: dict[str, Any] = {}
        for name, one in given.items():
            if isinstance(one, Mapping) and one.get("readOnly") is True:
                continue
            try:
                made[name] = self.argument(one, f"{path}.{name}", depth + 1, seen)
            except Unkeepable:
                if name in needed or self._left < 0:
                    raise
        return {"properties": made, "required": [name for name in needed if name in made]}


def listed(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def texts(schema: Mapping[str, Any]) -> dict[str, str]:
    found = schema.get("description")
    return {"description": found[:DESCRIPTION_LENGTH]} if isinstance(found, str) else {}


def exclusive(schema: Mapping[str, Any], kind: str, path: str) -> dict[str, Any]:
    """Bounds that are none of the values: true beside minimum in 3.0, a number in 3.1. Of numbers with decimals the
    bound itself is taken, which the server may refuse.
    """
    made: dict[str, Any] = {}
    for key, bound, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
        found = schema.get(key)
        if found is True:
            found = schema.get(bound)
        if found is None or found is False:
            continue
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise Unkeepable(f"{path}: {key} must be a number")
        made[bound] = found + step if kind == "integer" else found
    return made
