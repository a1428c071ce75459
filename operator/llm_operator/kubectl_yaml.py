"""YAML and JSON as kubectl reads them, which is not as PyYAML does: 20e9 is a number, ``no`` is false, 1:30 is a text.

kubectl splits a stream at lines that begin with ---, reads each part by go-yaml v2 and writes it as JSON. That is
YAML 1.1 with Go's syntax of numbers, keys that are texts, and the last of two equal keys. Pure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MOST_NESTED = 500  # kubectl takes 10,000
MOST_VALUES = 1_000_000  # with those that aliases repeat
WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
PREFIXED = re.compile(r"([-+]?)0(?:[xX]([0-9a-fA-F]+)|[oO]?([0-7]+)|[bB]([01]+))")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
TAG = "tag:yaml.org,2002:"
MERGE = object()  # the key <<


class UnreadableError(ValueError):
    """``line``: of the text, from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")


@dataclass(frozen=True)
class Document:
    """``line``: where it begins. ``repeated``: keys that stand twice, with the line of the second."""

    line: int
    value: Any
    repeated: tuple[str, ...] = ()


def documents(text: str) -> Iterator[Document]:
    """Those that are not empty; raises UnreadableError at the first one that can't be read."""
    lines = text.split("\n")
    separators = [number for number, line in enumerate(lines) if line.startswith("---")]
    starts = [0, *(number + 1 for number in separators)]
    for start, end in zip(starts, [*separators, len(lines)], strict=True):
        part = "\n".join(lines[start:end])
        found = _json_documents(part, start) if part.lstrip().startswith("{") else [_yaml_document(part, start)]
        yield from (document for document in found if document.value is not None)


# --- JSON ----------------------------------------------------------------------------------------------------------


def _json_documents(text: str, start: int) -> list[Document]:
    """One after another; a text that only looks like JSON, such as {a: b}, is read as YAML."""
    repeated: list[str] = []

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        keys = [key for key, _ in pairs]
        repeated.extend(f"line {start + 1}: {key!r}" for key in made if len(made) < len(keys) and keys.count(key) > 1)
        return made

    decoder = json.JSONDecoder(
        object_pairs_hook=object_of, parse_int=_number, parse_float=_number, parse_constant=_no_constant
    )
    found, at = [], 0
    try:
        while (at := len(text) - len(text[at:].lstrip())) < len(text):
            line = start + 1 + text.count("\n", 0, at)
            value, at = decoder.raw_decode(text, at)
            found.append(Document(line, value, tuple(repeated)))
            repeated.clear()
    except RecursionError:
        raise UnreadableError(start + 1, "is nested too deeply") from None
    except ValueError:
        return [_yaml_document(text, start)]
    return found


def _number(text: str) -> int | float:
    """A whole number that fits into 64 bits is an integer, any other a float, as for the API server."""
    if DECIMAL.fullmatch(text) and len(text) < 20 and -(1 << 63) <= int(text) < 1 << 63:
        return int(text)
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is beyond a float")
    return int(number) if number.is_integer() and -(2.0**63) <= number < 2.0**63 else number


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


# --- YAML ----------------------------------------------------------------------------------------------------------


@dataclass
class _Collection:
    """A list or mapping that is not at its end. ``size``: the values in it, with repeated ones."""

    value: list[Any] | dict[str, Any]
    anchor: str | None
    size: int = 1
    key: Any = None
    has_key: bool = False
    merged: set[str] = field(default_factory=set)  # keys that came by << and may be written again


@dataclass
class _Builder:
    """Makes values of a parser's events; without recursion, for the input may be nested as deeply as it likes."""

    start: int
    open: list[_Collection] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    root: Any = None

    def read(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self.add(event, self.scalar(event), 1, event.anchor)
            case yaml.AliasEvent():
                if any(collection.anchor == event.anchor for collection in self.open):
                    raise self.error(event, f"anchor {event.anchor!r} contains itself")
                if event.anchor not in self.anchors:
                    raise self.error(event, f"there is no anchor {event.anchor!r}")
                self.add(event, *self.anchors[event.anchor])
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                if len(self.open) >= MOST_NESTED:
                    raise self.error(event, f"is nested more than {MOST_NESTED} deep")
                empty: list[Any] | dict[str, Any] = [] if isinstance(event, yaml.SequenceStartEvent) else {}
                self.open.append(_Collection(empty, event.anchor))
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                ended = self.open.pop()
                self.add(event, ended.value, ended.size, ended.anchor)

    def add(self, event: yaml.Event, value: Any, size: int, anchor: str | None = None) -> None:
        if anchor:
            self.anchors[anchor] = (value, size)
        if not self.open:
            self.root = value
            return
        parent = self.open[-1]
        parent.size += size
        if parent.size > MOST_VALUES:
            raise self.error(event, f"has more than {MOST_VALUES:,} values, with those that aliases repeat")
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif not parent.has_key:
            parent.key, parent.has_key = self.key(event, value), True
        else:
            self.put(event, parent, value)
            parent.has_key = False

    def put(self, event: yaml.Event, parent: _Collection, value: Any) -> None:
        mapping, key = parent.value, parent.key
        assert isinstance(mapping, dict)  # noqa: S101 -- a list has no keys
        if key is MERGE:
            sources = value if isinstance(value, list) else [value]
            if not all(isinstance(source, dict) for source in sources):
                raise self.error(event, "<< takes a mapping or a list of mappings")
            for source in reversed(sources):
                mapping.update(source)
                parent.merged |= source.keys()
            return
        if key in mapping and key not in parent.merged:
            self.repeated.append(f"line {self.line(event)}: {key!r}")
        mapping[key] = value

    def key(self, event: yaml.Event, value: Any) -> Any:
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
            return MERGE
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return f"{value:g}" if isinstance(value, float) else str(value)
        raise self.error(event, "a key must be a text")

    def scalar(self, event: yaml.ScalarEvent) -> Any:
        tag = (event.tag or "").removeprefix(TAG)
        if not event.implicit[0] and tag not in ("int", "float", "bool", "null"):
            return event.value  # quoted, or !!str
        try:
            value = plain(event.value)
        except ValueError as error:
            raise self.error(event, str(error)) from None
        kinds = {"int": int, "float": int | float, "bool": bool, "null": type(None)}
        if tag in kinds and (not isinstance(value, kinds[tag]) or (tag != "bool" and isinstance(value, bool))):
            raise self.error(event, f"{event.value!r} is no !!{tag}")
        return value

    def line(self, event: yaml.Event) -> int:
        mark = event.start_mark
        return self.start + 1 + (mark.line if mark else 0)

    def error(self, event: yaml.Event, problem: str) -> UnreadableError:
        return UnreadableError(self.line(event), problem)


def _yaml_document(text: str, start: int) -> Document:
    builder, line = _Builder(start), start + 1
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.DocumentStartEvent):
                line = builder.line(event)
            if isinstance(event, yaml.DocumentEndEvent):
                break  # kubectl reads no further either
            builder.read(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise UnreadableError(start + 1 + (mark.line if mark else 0), error.problem or "is no YAML") from None
    except yaml.YAMLError as error:
        raise UnreadableError(start + 1, str(error).replace("\n", " ")) from None
    return Document(line, builder.root, tuple(builder.repeated))


def plain(text: str) -> Any:
    """What an unquoted scalar means; raises ValueError for what no JSON has, which is .inf and .nan."""
    if text in WORDS:
        return WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is no number of JSON")
    digits = text.replace("_", "")
    if found := PREFIXED.fullmatch(digits):
        sign, hexadecimal, octal, binary = found.groups()
        number = int(hexadecimal or octal or binary, 16 if hexadecimal else 8 if octal else 2)
        return _number(f"{sign.strip('+')}{number}") if number < 1 << 64 else text
    if FLOAT.fullmatch(digits) and math.isfinite(float(digits)):
        return _number(digits)
    return text
