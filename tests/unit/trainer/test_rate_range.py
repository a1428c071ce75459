"""Which learning rate a range test chooses."""

from __future__ import annotations

import math

import pytest

from llm_trainer.config import RateRange
from llm_trainer.stages.rate_range import chosen, is_over, rates, smoothed, spread

ASKED = RateRange(minimum=1e-5, maximum=1e-1, steps=41)  # ten steps for each power of ten


def test_rates_rise_evenly_from_the_least_to_the_greatest() -> None:
    tried = rates(ASKED)
    assert len(tried) == 41
    assert [tried[0], tried[-1]] == pytest.approx([1e-5, 1e-1])
    assert tried[10] == pytest.approx(1e-4)


def bowl(lowest: int) -> list[float]:
    return [3 + 0.01 * (step - lowest) ** 2 for step in range(41)]


def test_a_tenth_of_the_rate_of_the_lowest_loss() -> None:
    """Means lag behind by some steps."""
    rate, told = chosen(rates(ASKED), bowl(20), whole=True)
    assert rate
    assert 1e-4 <= rate <= 4e-4
    assert "a tenth of that at which the loss was lowest" in told
    assert "raise" not in told


def test_a_range_that_is_too_low_or_too_high() -> None:
    rate, told = chosen(rates(ASKED), bowl(60), whole=True)
    assert rate
    assert "raise tune.learningRate.maximum" in told
    rate, told = chosen(rates(ASKED), bowl(-5), whole=True)
    assert rate is None
    assert "lower tune.learningRate.minimum" in told
    assert chosen(rates(ASKED), [math.nan], whole=False)[0] is None


def test_a_trial_ends_when_the_loss_is_lost() -> None:
    assert is_over([3.0, math.nan])
    assert is_over([3.0, 2.9, 2.8] + [9.0] * 5)
    assert not is_over([3.0, 2.9, 3.2])
    rate, _ = chosen(rates(ASKED), [*bowl(20)[:30], math.inf], whole=False)
    assert rate


def test_means_have_no_bias() -> None:
    assert smoothed([2.0] * 5) == pytest.approx([2.0] * 5)


def test_points_of_a_curve() -> None:
    assert spread(3, 12) == [0, 1, 2]
    assert spread(100, 3) == [0, 50, 99] or spread(100, 3) == [0, 49, 99]
