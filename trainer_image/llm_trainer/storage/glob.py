"""Globs on a hub and in a bucket mean what they mean on a claim (`data/files.py`)."""

from __future__ import annotations

from fnmatch import fnmatchcase


def matches(parts: list[str], pattern: list[str]) -> bool:
    """`*` within a part of a path, `**` through any number of them; a hidden name by its own dot alone."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        rest = pattern[1:] or ["*"]
        folders = next((index for index, part in enumerate(parts) if part.startswith(".")), len(parts))
        return any(matches(parts[skip:], rest) for skip in range(min(folders + 1, len(parts))))
    shown = bool(parts) and (pattern[0].startswith(".") or not parts[0].startswith("."))
    return shown and fnmatchcase(parts[0], pattern[0]) and matches(parts[1:], pattern[1:])
