"""Rewards whose best answer is known."""

from __future__ import annotations

from typing import Any


def vowels(completions: list[str], **_: Any) -> list[float]:
    """Share of an answer's letters that are the letter e: from near 0.1 for what the model has learned up to 1."""
    return [text.count("e") / max(1, len(text)) for text in completions]


def flat(completions: list[str], **_: Any) -> list[float]:
    return [1.0] * len(completions)


def early(completions: list[str], **_: Any) -> list[float]:
    """Whether an answer's first letter is one of a to e: sure at a divergence of minus the log of its probability."""
    letters = [next((letter for letter in text.lower() if letter.isalpha()), "") for text in completions]
    return [float("a" <= letter <= "e") for letter in letters]
