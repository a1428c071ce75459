from __future__ import annotations

import itertools

import pytest

from llm_trainer.config import Schedule
from llm_trainer.models.schedule import learning_rate_share


def shares(steps: int = 100, **settings: object) -> list[float]:
    schedule = Schedule.model_validate(settings)
    return [learning_rate_share(schedule, step, steps) for step in range(steps)]


def test_warm_up_begins_above_zero_and_reaches_the_peak() -> None:
    made = shares(type="constant", warmup_steps=10)
    assert made[0] == pytest.approx(1 / 11)
    assert made[10] == 1.0
    assert all(a < b for a, b in itertools.pairwise(made[:11]))


def test_wsd_is_flat_and_then_falls_to_its_minimum() -> None:
    made = shares(type="wsd", warmup_steps=10, decay_fraction=0.3, minimum_ratio=0.1)
    assert made[10:71] == [1.0] * 61
    assert made[99] == pytest.approx(0.1, abs=0.04)
    assert all(a > b for a, b in itertools.pairwise(made[70:]))


def test_cosine_falls_to_its_minimum() -> None:
    made = shares(type="cosine", minimum_ratio=0.0)
    assert made[0] == 1.0
    assert made[50] == pytest.approx(0.5)
    assert made[99] < 0.01
