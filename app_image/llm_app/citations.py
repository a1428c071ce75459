"""What an answer was given to read, and which of it the answer names. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llm_app.prompt import Passage

NUMBER = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")


def citations(passages: Sequence[Passage], answer: str) -> list[dict[str, Any]]:
    """Every passage that was sent, by its number, and no other; ``cited``: the answer names the number."""
    named = cited(answer)
    return [{"number": number, **told(one), "cited": number in named} for number, one in enumerate(passages, 1)]


def cited(answer: str) -> set[int]:
    return {int(number) for found in NUMBER.findall(answer) for number in found.split(",")}


def told(passage: Passage) -> dict[str, Any]:
    return {
        "knowledge": passage.knowledge,
        "source": passage.source,
        "title": passage.title,
        "text": passage.text,
        "score": round(passage.score, 4),
        "revision": passage.revision,
        **({"metadata": dict(passage.metadata)} if passage.metadata else {}),
    }
