"""Manifest of an object that nobody has validated: what is of another type than it must be is as if it were not there.

A spec that was stored under an older definition, or a status that somebody has edited, may hold anything anywhere.
What a room reads of one before it is validated goes through here. Pure.
"""

from __future__ import annotations

from typing import Any

from llm_operator.kube.plan import Manifest


def at(found: object, *path: str) -> object:
    """The value under these names, one in another; None where one of them is no object, or lacks the next."""
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def text_at(found: object, *path: str) -> str:
    """Empty if it is no text."""
    value = at(found, *path)
    return value if isinstance(value, str) else ""


def object_at(found: object, *path: str) -> Manifest:
    """Empty if it is no object."""
    value = at(found, *path)
    return value if isinstance(value, dict) else {}


def list_at(found: object, *path: str) -> list[Any]:
    """Empty if it is no list."""
    value = at(found, *path)
    return value if isinstance(value, list) else []


def objects_at(found: object, *path: str) -> list[Manifest]:
    """Of a list those that are objects."""
    return [one for one in list_at(found, *path) if isinstance(one, dict)]


def texts_at(found: object, *path: str) -> list[str]:
    """Of a list those that are texts."""
    return [one for one in list_at(found, *path) if isinstance(one, str)]
