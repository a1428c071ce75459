"""Budgets count faults without progress: who gets on is never ended by them, and a crash loop always is."""

from __future__ import annotations

import pytest

from llm_operator.api.conditions import timestamp
from llm_trainer.protocol import ExitCode
from tests.unit.training import scenes
from tests.unit.training.scenes import condition, edit, fail, run_pods, settle, stage, status
from tests.unit.world import START, World


def lose(world: World, now: float, step: int, code: int = ExitCode.PREEMPTED) -> None:
    """The attempt under way ends; its newest checkpoint is of ``step``, 0: none."""
    if not scenes.pods(world):
        run_pods(world)
    checkpoint = scenes.checkpoint(world, step).model_copy(update={"time": now}) if step else None
    fail(world, code, "asked to leave", scenes.told(world, step, now, checkpoint=checkpoint))
    settle(world, now)


@pytest.mark.parametrize("code", [ExitCode.PREEMPTED, 1])
def test_any_number_of_faults_with_progress_ends_nothing(at_base: World, code: int) -> None:
    for number in range(1, 61):
        lose(at_base, START + 15 * number, 10 * number, code)
    base = stage(at_base, "base")
    assert status(at_base)["phase"] == "Restarting"
    assert base["attempts"][-1]["number"] == 61
    assert (base["ownRestarts"] + base["infrastructureRestarts"], status(at_base)["restarts"]) == (60, 60)
    assert len(base["attempts"]) == 10


@pytest.mark.parametrize(("code", "path", "limit"), [(ExitCode.PREEMPTED, "infrastructure", 20), (1, "own", 3)])
def test_a_crash_loop_without_progress_ends(at_base: World, code: int, path: str, limit: int) -> None:
    now, attempts = START, 0
    while status(at_base)["phase"] != "Failed":
        now, attempts = now + 700, attempts + 1
        settle(at_base, now)
        lose(at_base, now, 50, code)
        assert attempts <= limit + 1
    assert attempts == limit + 1
    assert condition(at_base, "Failed")["reason"] == "RestartsExhausted"
    assert f"spec.restarts.{path} {limit}" in condition(at_base, "Failed")["message"]


def test_a_step_back_and_the_same_way_again_is_no_progress(at_base: World) -> None:
    for number in range(3):
        lose(at_base, START + 100 * number, 50, 1)
        settle(at_base, START + 100 * number + 50)
        scenes.step(at_base, START + 100 * number + 60, scenes.told(at_base, 40, START + 100 * number + 60))
    assert stage(at_base, "base")["sinceProgress"] == {"own": 3, "infrastructure": 0, "step": 50}


def test_of_infrastructure_time_without_a_fault_refills_too(at_base: World) -> None:
    edit(at_base, restarts={"infrastructure": 1, "windowSeconds": 600})
    lose(at_base, START + 10, 0)
    run_pods(at_base)
    lose(at_base, START + 10 + 600, 0)
    assert status(at_base)["phase"] == "Restarting"
    lose(at_base, START + 10 + 600 + 599, 0)
    assert status(at_base)["phase"] == "Failed"


@pytest.mark.parametrize("hours", [-1, 1])
def test_how_long_an_attempt_took_is_not_told_by_the_clocks_of_two_operators(at_base: World, hours: int) -> None:
    edit(at_base, restarts={"infrastructure": 1, "windowSeconds": 600})
    lose(at_base, START + 10, 0)
    run_pods(at_base)
    stage(at_base, "base")["attempts"][-1]["startTime"] = timestamp(START + 3600 * hours)  # by the operator before
    lose(at_base, START + 10 + (600 if hours > 0 else 599), 0)
    assert status(at_base)["phase"] == ("Restarting" if hours > 0 else "Failed")


def test_own_faults_are_not_forgotten_with_time(at_base: World) -> None:
    edit(at_base, restarts={"own": 1, "windowSeconds": 600})
    lose(at_base, START + 10, 0, 1)
    lose(at_base, START + 5000, 0, 1)
    assert status(at_base)["phase"] == "Failed", "an attempt of an hour that gets nowhere costs an hour each time"


@pytest.mark.parametrize(("code", "longest"), [(ExitCode.PREEMPTED, 600), (1, 60)])
def test_the_wait_grows_without_progress_and_begins_anew_with_it(at_base: World, code: int, longest: int) -> None:
    edit(at_base, restarts={"own": 100, "infrastructure": 100})
    now, waits = START, []
    for _ in range(14):
        lose(at_base, now, 50, code)
        under_way = "endTime" not in stage(at_base, "base")["attempts"][-1]
        due = 0.0 if under_way else scenes.step(at_base, now).requeue_after or 0.0
        waits.append(due)
        now += due
        settle(at_base, now)
    assert waits[:5] == [0, 2, 4, 8, 16]
    assert max(waits) == waits[-1] == longest
    lose(at_base, now, 60, code)
    assert "waiting for 2 pods" in condition(at_base, "Running")["message"], "it got on, so it starts at once"
