"""Whether a result is as good as its stage asks: its held-out figures and scores against the thresholds. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from llm_trainer.config import CORPUS_METRIC, FALLING, Evaluation, Threshold
from llm_trainer.protocol import Score

ROUNDING = 1e-9  # of a difference, as a share


@dataclass(frozen=True)
class Measured:
    """``rises``: more of it is better."""

    value: float
    rises: bool = True


Metrics = Mapping[str, Measured]


def metrics_of(figures: Mapping[str, float], scores: Sequence[Score]) -> dict[str, Measured]:
    """Of a stage, by the names that thresholds have for them."""
    held_out = {name: Measured(value, rises=not falls(name)) for name, value in figures.items()}
    return held_out | {score.name: Measured(score.value, score.higher_is_better) for score in scores}


def falls(figure: str) -> bool:
    return figure in FALLING or figure.startswith(f"{CORPUS_METRIC}/")


def missed(thresholds: Sequence[Threshold], own: Metrics, earlier: Mapping[str, Metrics]) -> list[str]:
    """What each threshold that isn't met says: the metric, its value and what it had to be.

    ``earlier``: of the stages that thresholds name.
    """
    return [text for threshold in thresholds for text in _missed(threshold, own, earlier)]


def _missed(threshold: Threshold, own: Metrics, earlier: Mapping[str, Metrics]) -> Iterator[str]:
    name, found = threshold.metric, own.get(threshold.metric)
    if found is None:
        yield f"{name} isn't known; the stage tells {_names(own)}"
        return
    if not math.isfinite(found.value):
        yield f"{name} is {found.value}"
        return
    if threshold.min is not None and found.value < threshold.min:
        yield f"{name} is {found.value:.6g}, less than min {threshold.min:g}"
    if threshold.max is not None and found.value > threshold.max:
        yield f"{name} is {found.value:.6g}, more than max {threshold.max:g}"
    if wanted := threshold.at_least:
        other = wanted.metric or name
        before = earlier.get(wanted.stage, {}).get(other)
        if before is None or not math.isfinite(before.value):
            told = "isn't known" if before is None else f"is {before.value}"
            yield f"{name} can't be compared: {other} of stage {wanted.stage} {told}"
        elif _worse_by(found, before) - wanted.delta > ROUNDING * max(1.0, abs(before.value)):
            side = "less" if found.rises else "more"
            but = f" by more than delta {wanted.delta:g}" if wanted.delta else ""
            yield f"{name} is {found.value:.6g}, {side} than {other} {before.value:.6g} of stage {wanted.stage}{but}"


def _worse_by(found: Measured, before: Measured) -> float:
    return before.value - found.value if found.rises else found.value - before.value


def _names(own: Metrics) -> str:
    return ", ".join(sorted(own)) or "no metric, as nothing is held out"


def earlier_stages(evaluation: Evaluation) -> list[str]:
    """Those with which thresholds compare, each once."""
    named = (threshold.at_least.stage for threshold in evaluation.thresholds if threshold.at_least)
    return list(dict.fromkeys(named))
