"""JSON, or YAML that says no more than JSON can: no aliases, which make much of little, and no tags. Pure.

Scalars are those of YAML 1.2's core schema: ``on`` is a text. Nothing here recurses, however deep a text nests.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

MOST_DEEP = 64
WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
NUMBER = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,2})?")


class UnreadableError(ValueError):
    """With the line, where it is known."""


def read(text: str) -> Any:
    """One document. Raises UnreadableError."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            made = json.loads(text, parse_constant=no_number)
        except RecursionError:
            raise UnreadableError(f"nests more than {MOST_DEEP} deep; make it flatter") from None
        except ValueError:
            pass  # YAML may begin so too
        else:
            return shallow(made)
    building = Building()
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            building.take(event)
    except yaml.MarkedYAMLError as error:
        raise UnreadableError(f"{line_of(error.problem_mark)}{error.problem or 'is no YAML'}") from None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError(str(error).replace("\n", " ")) from None
    return building.root


def no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def shallow(value: Any) -> Any:
    """The same. Raises UnreadableError if it is too deep."""
    level, depth = [value], 0
    while level:
        if depth > MOST_DEEP:
            raise UnreadableError(f"nests more than {MOST_DEEP} deep; make it flatter")
        nested = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level, depth = [one for values in nested for one in values], depth + 1
    return value


def line_of(mark: Any) -> str:
    return f"line {mark.line + 1}: " if mark else ""


@dataclass
class Building:
    """Of a parser's events. ``open``: what is not at its end, with the key that waits for its value."""

    root: Any = None
    open: list[tuple[Any, list[str]]] = field(default_factory=list)
    documents: int = 0

    def take(self, event: yaml.Event) -> None:
        where = line_of(event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise UnreadableError(f"{where}a second document begins; have one")
        elif isinstance(event, yaml.AliasEvent):
            raise UnreadableError(f"{where}*{event.anchor} is an alias, which is not taken; write it out")
        elif isinstance(event, yaml.ScalarEvent):
            plain = event.implicit[0]
            self.add(scalar(event.value) if plain else event.value, event.value, where)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            if len(self.open) >= MOST_DEEP:
                raise UnreadableError(f"{where}nests more than {MOST_DEEP} deep; make it flatter")
            made: Any = [] if isinstance(event, yaml.SequenceStartEvent) else {}
            self.add(made, None, where)
            self.open.append((made, []))
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            self.open.pop()

    def add(self, value: Any, text: str | None, where: str) -> None:
        """``text``: of a scalar as it is written, which is what it is as a key."""
        if not self.open:
            self.root = value
            return
        parent, waiting = self.open[-1]
        if isinstance(parent, list):
            parent.append(value)
        elif waiting:
            parent[waiting.pop()] = value
        elif text is None:
            raise UnreadableError(f"{where}a key must be a text")
        elif text in parent:
            raise UnreadableError(f"{where}the key {text!r} stands twice")
        else:
            waiting.append(text)


def scalar(text: str) -> Any:
    if text in WORDS:
        return WORDS[text]
    if WHOLE.fullmatch(text):
        return int(text)
    return float(text) if NUMBER.fullmatch(text) else text
