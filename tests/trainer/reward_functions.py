"""Rewards whose best answer is known."""

from __future__ import annotations

from typing import Any


def flat(completions: list[str], **_: Any) -> list[float]:
    return [1.0] * len(completions)


def early(completions: list[str], **_: Any) -> list[float]:
    """Whether an answer's first letter is one of a to e: sure at a divergence of minus the log of its probability."""
    letters = [next((letter for letter in text.lower() if letter.isalpha()), "") for text in completions]
    return [float("a" <= letter <= "e") for letter in letters]
