"""Tokens and the characters that they stand for; texts within a row."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tokens:
    """``starts``, ``ends``: the characters of each token in what was rendered."""

    ids: list[int]
    starts: list[int]
    ends: list[int]

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.ids + other.ids, self.starts + other.starts, self.ends + other.ends)

    def between(self, begin: int, end: int) -> range:
        """The tokens that have any of these characters."""
        return range(bisect_right(self.ends, begin), bisect_left(self.starts, end)) if begin < end else range(0)


def strings(value: Any) -> Any:
    """All texts within, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from strings(key)
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def mapped(value: Any, change: Any) -> Any:
    """With every text within changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {mapped(key, change): mapped(part, change) for key, part in value.items()}
    return [mapped(part, change) for part in value] if isinstance(value, list) else value
