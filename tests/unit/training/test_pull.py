"""When it is said that rank 0 can't be asked, and in which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_operator.kube.pull import LONGEST_PAUSE_SECONDS, NO_WAY, REFUSED, Word, pause, unanswered, url
from llm_trainer.protocol import Progress
from tests.unit.training import scenes
from tests.unit.training.scenes import condition
from tests.unit.world import START, World

TIMEOUT = f"timeout after 2 s; {NO_WAY}"
HEARD = Progress(stage="base", attempt=1, step=7)


def after(times: int, why: str, word: Word | None = None) -> Word:
    word = word or Word()
    for _ in range(times):
        word = unanswered(word, why, 10.0)
    return word


def test_where_rank_0_is_asked() -> None:
    assert url("10.0.0.7") == "http://10.0.0.7:9400/progress"
    assert url("fd00::7") == "http://[fd00::7]:9400/progress"


def test_one_or_two_failures_are_not_told() -> None:
    assert after(2, TIMEOUT).silence == ""
    assert after(3, TIMEOUT).silence == TIMEOUT
    assert after(3, TIMEOUT, Word(HEARD)) == Word(HEARD, TIMEOUT)


def test_a_trainer_may_take_its_time_to_listen() -> None:
    assert after(29, REFUSED).silence == ""
    assert after(30, REFUSED).silence == REFUSED
    assert after(3, REFUSED, Word(HEARD)).silence == REFUSED, "this one has listened"


@given(st.integers(0, 10_000), st.floats(0.1, 1000), st.booleans())
def test_whoever_is_silent_is_asked_ever_less_often_and_never_given_up(
    failures: int, interval: float, silent: bool
) -> None:
    seconds = pause(Word(None, TIMEOUT if silent else "", failures + 3), interval)
    assert interval <= seconds <= max(interval, LONGEST_PAUSE_SECONDS)


def test_failures_that_a_pass_could_not_tell_apart_are_no_news() -> None:
    assert after(4, TIMEOUT) == after(5, TIMEOUT)
    assert after(1, TIMEOUT) == Word()
    assert after(3, TIMEOUT) != Word()


@pytest.fixture
def reachable(at_base: World) -> World:
    """Rank 0 has an address and has told step 10."""
    pod = scenes.pods(at_base)[0]
    pod["status"]["podIP"] = "10.0.0.7"
    scenes.step(at_base, START + 20, scenes.told(at_base, 10, START + 20))
    return at_base


def running(world: World) -> str:
    return str(condition(world, "Running")["message"])


def test_the_status_says_that_rank_0_is_silent_until_it_speaks(reachable: World) -> None:
    told = scenes.told(reachable, 10, START + 20)
    pod = scenes.pods(reachable)[0]["metadata"]["name"]
    scenes.step(reachable, START + 60, told, silence=TIMEOUT)
    assert condition(reachable, "Running")["status"] == "True"
    assert running(reachable) == (
        f"stage base, attempt 1: 2 pods run; rank 0 (pod {pod}, 10.0.0.7) can't be asked for its progress since "
        "2026-01-01T00:00:20Z: timeout after 2 s; allow the operator's namespace in your NetworkPolicy (TCP port 9400)"
    )
    assert scenes.step(reachable, START + 200, told, silence=TIMEOUT).empty, "one write, not one for each try"
    scenes.step(reachable, START + 210, scenes.told(reachable, 30, START + 210))
    assert running(reachable) == "stage base, attempt 1: 2 pods run"


def test_a_restarted_operator_does_not_take_it_back(reachable: World) -> None:
    scenes.step(reachable, START + 60, silence=TIMEOUT)
    assert scenes.step(reachable, START + 61).empty, "it has asked nobody yet"
    assert scenes.step(reachable, START + 99, silence=TIMEOUT).empty
    scenes.end_pod(scenes.pods(reachable)[1], scenes.KILLED, "killed")
    scenes.settle(reachable, START + 100)
    assert "can't be asked" not in running(reachable), "that was the attempt before"


def test_one_never_heard_of_is_silent_since_it_started(at_base: World) -> None:
    pod = scenes.pods(at_base)[0]
    pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"] = "2026-01-01T00:00:05Z"
    scenes.step(at_base, START + 60, silence=TIMEOUT)
    assert "since 2026-01-01T00:00:05Z: timeout" in running(at_base)


def test_a_running_training_wants_no_pass_by_time(at_base: World) -> None:
    assert scenes.step(at_base, START + 20, scenes.told(at_base, 10, START + 20)).requeue_after is None
