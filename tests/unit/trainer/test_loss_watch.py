"""What is decided of a loss, and which data a rollback jumps over."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trainer.checkpoint.rollbacks import (
    JOURNAL,
    Rollback,
    is_abandoned,
    place_of,
    rate_of,
    read_rollbacks,
    superseded,
    target,
    write_rollbacks,
)
from llm_trainer.config import LossWatch
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.stages.loss_watch import (
    Action,
    Decision,
    Memory,
    Seen,
    after_evaluation,
    after_step,
    jump,
    safe_step,
    shown_numbers,
)

NAN, INFINITY = math.nan, math.inf
SMALL: dict[str, Any] = {"window": 16, "sigma": 4, "spikeSteps": 3, "skips": 3, "rollbacks": 2}
CALM = [3 + 0.1 * math.sin(step) for step in range(16)]


def seen(losses: Iterable[float | None], watch: LossWatch, rollbacks: int = 0, patience: int = 10) -> list[Any]:
    """What is decided after each step; None is one that was left out."""
    memory, decided = Memory(), []
    for step, loss in enumerate(losses, start=1):
        figures = Seen(step, NAN if loss is None else loss, 1.0, loss is not None)
        memory, decision = after_step(watch, memory, figures, rollbacks, patience)
        decided.append(decision and (decision.action, decision.safe))
        memory = Memory.model_validate_json(memory.model_dump_json(by_alias=True))  # as a checkpoint carries it
    return decided


SKIP = (Action.SKIP, 0)
TABLE: list[tuple[str, dict[str, Any], list[float | None], list[Any]]] = [
    ("calm", {}, [3.0, 3.1], [None, None]),
    ("falling", {}, [2.0, 1.0, 0.5], [None] * 3),
    ("one spike", {}, [9.0, 3.0], [None, None]),
    ("a spike that lasts", {}, [9.0, 9.0, 9.0], [None, None, (Action.ROLL_BACK, 15)]),
    ("a spike that is over", {}, [9.0, 9.0, 3.0, 9.0, 9.0], [None] * 5),
    ("not so high", {"sigma": 100}, [9.0, 9.0, 9.0], [None] * 3),
    ("steps left out", {}, [None, None, None], [SKIP, SKIP, (Action.ROLL_BACK, 15)]),
    ("left out between", {}, [None, 3.0, None, 3.0, None], [SKIP, None, SKIP, None, SKIP]),
    ("a spike, then left out", {}, [9.0, 9.0, None, None, None], [None, None, SKIP, SKIP, (Action.ROLL_BACK, 15)]),
    ("left out, then a spike", {}, [None, None, 9.0, 9.0, 9.0], [SKIP, SKIP, None, None, (Action.ROLL_BACK, 15)]),
    ("applied and infinite", {}, [INFINITY, NAN, INFINITY], [None, None, (Action.ROLL_BACK, 15)]),
    ("none left", {"rollbacks": 0}, [9.0, 9.0, 9.0], [None, None, (Action.DIVERGED, 15)]),
]


@pytest.mark.parametrize(("changed", "after", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_after_a_step(changed: dict[str, Any], after: list[float | None], expected: list[Any]) -> None:
    watch = LossWatch.model_validate({**SMALL, **changed})
    assert seen([*CALM, *after], watch)[len(CALM) :] == expected


LAST: list[tuple[dict[str, Any], list[float | None], Any]] = [
    ({}, [9.0], (Action.ROLL_BACK, 15, True)),
    ({}, [9.0, 9.0], (Action.ROLL_BACK, 15, True)),
    ({}, [9.0, None], (Action.ROLL_BACK, 15, True)),
    ({}, [9.0, 9.0, 9.0], (Action.ROLL_BACK, 15, False)),
    ({}, [9.0, 3.0], None),
    ({}, [None], (Action.SKIP, 0, False)),
    ({"rollbacks": 0}, [9.0], None),
    ({"rollbacks": 0}, [9.0, 9.0, 9.0], (Action.DIVERGED, 15, False)),
]


@pytest.mark.parametrize(("changed", "after", "expected"), LAST)
def test_a_spike_at_the_stages_end_need_not_last(
    changed: dict[str, Any], after: list[float | None], expected: Any
) -> None:
    """It would be in the result. What is left out is in none, and with no rollback left it is no reason to fail."""
    watch, memory, decision = LossWatch.model_validate({**SMALL, **changed}), Memory(), None
    losses = [*CALM, *after]
    for step, loss in enumerate(losses, start=1):
        figures = Seen(step, NAN if loss is None else loss, 1.0, loss is not None)
        memory, decision = after_step(watch, memory, figures, 0, 10, last=step == len(losses))
    assert (decision and (decision.action, decision.safe, decision.early)) == expected


def test_without_enough_steps_before_nothing_is_a_spike() -> None:
    assert seen([3.0, 3.1, 3.0, 3.1, 99.0, 99.0, 99.0], LossWatch.model_validate(SMALL)) == [None] * 7


def test_a_stage_that_begins_with_steps_left_out() -> None:
    """Nothing is before them to go back to but the start; in a short stage fewer are enough."""
    watch = LossWatch.model_validate(SMALL)
    assert seen([None] * 3, watch)[-1] == (Action.ROLL_BACK, 0)
    assert seen([None], watch, patience=1) == [(Action.ROLL_BACK, 0)]
    assert seen([None] * 3, watch, rollbacks=2)[-1] == (Action.DIVERGED, 0)


def test_a_loss_that_hardly_moves_has_no_spikes_of_nothing() -> None:
    assert seen([2.0] * 16 + [2.001] * 5, LossWatch.model_validate(SMALL)) == [None] * 21


def test_losses_too_large_to_be_squared() -> None:
    """They pass for good ones before there is a mean; then nothing can be told until they have left the window."""
    watch = LossWatch.model_validate({**SMALL, "window": 8})
    assert seen([0.0, 1.6e154, 1.7e308, 1.7e308, 3.0, 9.0], watch) == [None] * 6
    assert seen([0.0, 1.7e308, *CALM[:9], 9.0, 9.0, 9.0], watch)[-1] == (Action.ROLL_BACK, 10)


def test_a_gradient_makes_a_spike_of_a_loss_that_rises() -> None:
    watch = LossWatch.model_validate(SMALL)
    memory = Memory()
    for step, loss in enumerate(CALM, start=1):
        memory, _ = after_step(watch, memory, Seen(step, loss, 1.0, applied=True), 0, 10)
    rising = 3 + 0.1 * math.sqrt(0.5) * 3  # three standard deviations
    for loss, norm, off in ((rising, 1.0, 0), (3.0, 50.0, 0), (rising, 50.0, 1), (rising, NAN, 0)):
        found, _ = after_step(watch, memory, Seen(17, loss, norm, applied=True), 0, 10)
        assert found.off == off, (loss, norm)


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=True)), max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_whatever_the_losses_are(losses: list[float | None], spikes: int, skips: int) -> None:
    """A rollback goes back behind all steps that were off, and comes after as many as were asked at the latest."""
    watch = LossWatch.model_validate({**SMALL, "spikeSteps": spikes, "skips": skips})
    memory, off = Memory(), 0
    for step, loss in enumerate(losses, start=1):
        memory, decision = after_step(watch, memory, Seen(step, loss or 0.0, 1.0, loss is not None), 0, 10)
        off = memory.off
        assert len(memory.losses) <= watch.window
        assert all(math.isfinite(each) for each in memory.losses)
        assert off <= spikes * skips + skips
        assert safe_step(memory, step) == max(0, step - off - 1)
        if decision and decision.action is Action.ROLL_BACK:
            assert decision.safe == max(0, step - off - 1)
            memory = Memory()


# --- plateaus ---


def evaluated(losses: list[float], **watch: Any) -> list[Action | None]:
    settings, memory = LossWatch.model_validate(watch), Memory()
    decided: list[Action | None] = []
    for number, loss in enumerate(losses):
        memory, decision = after_evaluation(settings, memory, loss, 10 * number, last=False)
        decided.append(decision.action if decision else None)
        memory = Memory.model_validate_json(memory.model_dump_json(by_alias=True))
    return decided


def test_the_rate_is_reduced_on_a_plateau() -> None:
    losses = [3.0, 2.0, 2.0, 2.1, 1.9, 2.0, 2.0, 2.0, 2.0]
    reduce = Action.REDUCE_RATE
    expected = [None, None, None, reduce, None, None, reduce, None, reduce]
    assert evaluated(losses, reduceOnPlateau={"patience": 2, "factor": 0.5}) == expected
    memory = Memory(best=2.0, since_best=1, rate=0.5)
    memory, decision = after_evaluation(
        LossWatch.model_validate({"reduceOnPlateau": {"patience": 2, "factor": 0.1}}), memory, 2.0, 50, last=False
    )
    assert memory.rate == pytest.approx(0.05)
    assert decision
    assert decision.message == (
        "2 evaluations in a row, up to step 50, had no held-out loss below 2.0000: the learning rate is 0.05 of its "
        "schedule"
    )


def test_an_early_stop() -> None:
    stop = Action.EARLY_STOP
    early = {"patience": 2, "minDelta": 0.1}
    assert evaluated([3.0, 2.95, 2.92, 2.8], earlyStop=early)[:3] == [None, None, stop]
    assert evaluated([3.0, 2.95, 2.8, 2.75, 2.6], earlyStop=early) == [None] * 5
    assert evaluated([NAN, NAN, 3.0], earlyStop=early)[:2] == [None, stop]
    assert evaluated([3.0, 3.0, 3.0]) == [None] * 3


def test_nothing_is_decided_after_the_last_evaluation() -> None:
    watch = LossWatch.model_validate({"earlyStop": {"patience": 1}, "reduceOnPlateau": {"patience": 1}})
    assert after_evaluation(watch, Memory(best=1.0, goal=1.0), 2.0, 100, last=True)[1] is None


# --- data ---


def test_a_second_rollback_near_the_first_jumps_further() -> None:
    first = rollback(40, 46)
    assert jump(40, 46, [], near=16) == 46
    assert jump(45, 50, [first], near=16) == 58  # its end and twice its size
    assert jump(39, 49, [first], near=16) == 58  # the steps before it are the last good ones
    assert jump(200, 206, [first], near=16) == 206
    assert jump(10, 15, [first], near=16) == 15
    assert jump(1001, 1006, [rollback(0, 1000)], near=16) == 2000


def rollback(begin: int, end: int, to: int = 0, **more: Any) -> Rollback:
    return Rollback(step=end, to=to, begin=begin, end=end, message="", **more)


RANGES = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10)), max_size=6)


@given(RANGES)
def test_every_place_that_was_not_jumped_over_has_one_step_in_order(ranges: list[tuple[int, int]]) -> None:
    rollbacks = [rollback(begin, begin + size) for begin, size in ranges]
    left = [p for p in range(300) if not any(begin <= p < begin + size for begin, size in ranges)]
    assert [place_of(step, rollbacks) for step in range(len(left))] == left


def test_numbers_in_a_message() -> None:
    assert shown_numbers([3, 5]) == "3, 5"
    assert shown_numbers(list(range(20)), most=3) == "0, 1, 2 and 17 more"


def test_the_rate_after_rollbacks() -> None:
    assert rate_of([]) == 1
    assert rate_of([rollback(1, 2, rate_factor=0.5), rollback(3, 4, rate_factor=0.1)]) == pytest.approx(0.05)


def test_which_checkpoints_do_not_count() -> None:
    """Those that were written after the step to which a later rollback went."""
    made = [rollback(20, 25, to=20), rollback(40, 45, to=35)]
    assert [step for step in (10, 20, 21, 30) if is_abandoned(step, 0, made)] == [21, 30]
    assert [step for step in (10, 21, 30, 35, 36) if is_abandoned(step, 1, made)] == [36]
    assert not is_abandoned(99, 2, made)


@pytest.mark.parametrize(("steps", "to"), [([10, 20, 30], 29), ([30], 30), ([29], 29), ([31, 40], None), ([], None)])
def test_how_far_a_rollback_goes(steps: list[int], to: int | None) -> None:
    """The step before the first that is off is suspect; a stage that has nothing else goes back to it all the same."""
    assert target(29, 1, steps) == to


@pytest.mark.parametrize(
    ("keep", "safe", "gone"),
    [
        (2, None, [10, 20]), (1, None, [10, 20, 30]), (2, 40, [10, 20]), (1, 39, [10, 20]), (1, 25, [10, 30]),
        (1, 5, [20, 30]), (9, 25, []),
    ],
)  # fmt: skip
def test_one_good_checkpoint_stays(keep: int, safe: int | None, gone: list[int]) -> None:
    assert superseded([30, 10, 40, 20], keep, safe) == gone


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(1, 4), st.integers(0, 60))
def test_what_is_kept_is_enough_for_a_rollback(steps: set[int], keep: int, safe: int) -> None:
    """To wherever it would go with all of them."""
    left = steps - set(superseded(sorted(steps), keep, safe))
    assert target(safe, 1, sorted(left)) == target(safe, 1, sorted(steps))
    assert [s for s in sorted(left) if s <= safe][-1:] == [s for s in sorted(steps) if s <= safe][-1:]
    assert sorted(steps)[-keep:] == sorted(left)[-keep:]


def test_the_journal(tmp_path: Path) -> None:
    assert read_rollbacks(tmp_path) == []
    made = [rollback(3, 5, to=2, rate_factor=0.5)]
    write_rollbacks(tmp_path, made)
    assert read_rollbacks(tmp_path) == made
    assert json.loads((tmp_path / JOURNAL).read_text())[0]["rateFactor"] == 0.5
    (tmp_path / JOURNAL).write_text('[{"step": 1}]')
    with pytest.raises(ConfigurationError, match="is not as it was written"):
        read_rollbacks(tmp_path)


def test_decisions_tell_why() -> None:
    watch, memory = LossWatch.model_validate(SMALL), Memory(losses=tuple(CALM), norms=(1.0,) * 16)
    told: list[Decision | None] = []
    for step in (17, 18, 19):
        memory, decision = after_step(watch, memory, Seen(step, 9.0, 2.0, applied=True), 0, 10)
        told.append(decision)
    assert told[-1]
    assert told[-1].message.startswith("3 steps in a row, up to step 19, are off, the last because the loss 9 is "), (
        told[-1].message
    )
    assert "standard deviations above the mean 3.0" in told[-1].message
