"""The learning-rate range test (Smith 2017, section 3.3): which rates are tried, and which is chosen. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from llm_trainer.config.tune import RateRange

BELOW_LOWEST = 10  # the loss is lowest where steps begin to be too large
SMOOTHING = 0.8  # of a step's loss what the steps before it tell
DIVERGED = 1.5  # times the lowest loss: higher rates have nothing to tell
SHOWN = 12  # points of the curve in a message


class Tuned(BaseModel):
    """What was chosen; a part of each checkpoint, so that a resume doesn't try again."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    learning_rate: float | None = None
    micro_batch_size: int | None = None


def rates(asked: RateRange) -> list[float]:
    """Each is as many times the one before."""
    growth = math.log(asked.maximum / asked.minimum) / (asked.steps - 1)
    return [asked.minimum * math.exp(growth * step) for step in range(asked.steps)]


def smoothed(losses: Sequence[float]) -> list[float]:
    """Exponential means, without a bias towards 0 (as Adam's)."""
    mean, made = 0.0, []
    for number, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        made.append(mean / (1 - SMOOTHING**number))
    return made


def is_over(losses: Sequence[float]) -> bool:
    """Whether the trial may end before its last rate."""
    if not math.isfinite(losses[-1]):
        return True
    curve = smoothed(losses)
    return min(curve) > 0 and curve[-1] > DIVERGED * min(curve)


def chosen(tried: Sequence[float], losses: Sequence[float], *, whole: bool) -> tuple[float | None, str]:
    """And what is told of it; None where no rate lowers the loss. ``whole``: the trial came to its last rate."""
    curve = smoothed([loss for loss in losses if math.isfinite(loss)])
    points = ", ".join(f"{tried[place]:.2g} {curve[place]:.3f}" for place in spread(len(curve), SHOWN)) or "none"
    told = f"(smoothed loss by rate: {points})"
    lowest = curve.index(min(curve)) if curve else 0
    if lowest == 0:
        return None, f"no rate from {tried[0]:.2g} on lowers the loss {told}; lower tune.learningRate.minimum"
    rate, hint = tried[lowest] / BELOW_LOWEST, ""
    if whole and lowest + 1 == len(tried):
        hint = "; it still fell at the highest rate: raise tune.learningRate.maximum"
    return rate, f"the learning rate's peak is {rate:.3g}, a tenth of that at which the loss was lowest{hint} {told}"


def spread(count: int, most: int) -> list[int]:
    """So many places of a range at most, evenly, with the first and the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(place * (count - 1) / (most - 1)) for place in range(most)})
