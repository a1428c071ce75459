"""Which of the held-out rows an evaluation reads: it may cost about a hundredth of the steps between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from llm_trainer.config import FineTuning
from llm_trainer.models.held_out import FORWARD, SHARE_OF_WORK

LEAST_ROWS = 128  # a figure of fewer would be noise

T = TypeVar("T")


def row_budget(settings: FineTuning) -> int:
    """Rows of an evaluation: the same number whatever the processes, so that its figures are the same too."""
    if (tokens := settings.evaluation.tokens) is not None:
        return max(1, tokens // settings.length)
    return max(LEAST_ROWS, int(settings.evaluation.every_steps * settings.rows_per_step * SHARE_OF_WORK / FORWARD))


def evaluated(held_out: Sequence[T], settings: FineTuning) -> list[T]:
    """All held-out rows within the budget, else so many, evenly chosen; the others are read by nobody."""
    count = min(len(held_out), row_budget(settings))
    return [held_out[number * len(held_out) // count] for number in range(count)]
