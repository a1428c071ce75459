"""What is known of a step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepReport:
    """What one step gave, the same on every rank."""

    loss: float
    tokens: int  # that it learned from, over all ranks
    gradient_norm: float  # before clipping; NaN where there is none
    applied: bool  # False if it was left out because a gradient is not finite
    figures: dict[str, float]  # others, by name
