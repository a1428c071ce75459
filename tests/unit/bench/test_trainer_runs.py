"""What the comparison of trainers makes of a log and of samples."""

from __future__ import annotations

import pytest

from tests.bench.trainer_runs import Measured, Sample, most_of


def measured(*, losses: dict[int, float] | None = None) -> Measured:
    """Twenty steps of 2 s that use 3 CPU seconds each, after 10 s of start-up; an export makes memory jump."""
    ends = {step: 100.0 + 10 + 2 * step for step in range(1, 21)}
    samples = [Sample(110.0 + second, 7 + 1.5 * second, 1000 + second, 0) for second in range(41)]
    return Measured(ends, losses or {}, [Sample(100.0, 0, 1, 0), *samples, Sample(160.0, 90, 9000, 0)])


def test_steps_before_the_first_that_counts_are_left_out() -> None:
    assert measured().seconds(5) == pytest.approx(2.0)
    assert measured().cpu_seconds(5) == pytest.approx(3.0)


def test_memory_after_the_last_step_is_not_the_training_s() -> None:
    assert measured().peak(gpu=False) == 1040


def test_a_log_of_every_step_compares_with_one_of_means() -> None:
    every = measured(losses={step: float(step) for step in range(1, 21)})
    means = measured(losses={10: 5.5, 20: 15.5})
    assert every.mean_losses(10) == means.mean_losses(10) == [5.5, 15.5]


def test_a_process_that_a_sample_misses_has_used_what_it_had() -> None:
    """Else a run would seem to take half of what it takes."""
    seen = most_of(most_of({}, {1: 3.0, 2: 4.0}), {2: 5.0})
    assert seen == {1: 3.0, 2: 5.0}
    assert most_of(seen, {1: 0.0, 2: 6.0}) == {1: 3.0, 2: 6.0}, "its line could not be read"
