"""A crowd before an app: all are answered, nobody's answer is another's, and the server's memory has an end."""

from __future__ import annotations

import heapq
from collections import Counter

import pytest

from llm_app.door import MOST_LATER, Line, Turnstile
from llm_app.requests import RequestError
from tests.app.crowd import comes

MOST_MIB = 400  # of a replica


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.release)])
async def test_a_crowd_is_answered_whole(count: int) -> None:
    seen = await comes(count)
    assert not seen.wrong
    assert seen.answered == count
    assert seen.most == 64, "no more than that at a time"
    assert seen.refused == sum(seen.tries) - count > 0, "some were told to come again"
    assert seen.memory < MOST_MIB, (seen.before, seen.memory)
    assert "llm_app_waiting_requests 0.0" in seen.after


def test_who_is_refused_at_the_same_time_is_told_to_come_at_several() -> None:
    """In groups for which there is a place."""
    now = 16.0
    door = Turnstile(2, 2, 1000, clock=lambda: now)
    told: list[int] = []

    def refused(times: int) -> None:
        for _ in range(times):
            with pytest.raises(RequestError) as error, door.admitted(1001):
                raise AssertionError("it has no room for this")
            told.append(error.value.retry_seconds)

    refused(11)
    assert told == [1] * 3 + [2] * 4 + [3] * 4
    refused(10_000)
    assert max(told) == MOST_LATER
    beyond = Counter(told[MOST_LATER * 4 :])
    assert max(beyond.values()) < 2 * min(beyond.values()), "for whom the line is too long come at many times, too"
    with door.admitted(1):
        pass
    refused(1)
    assert told[-1] == 1, "nobody waits any more"


@pytest.mark.parametrize("count", [1000, 2000])
def test_a_crowd_before_a_slow_model_is_answered_after_a_few_tries(count: int) -> None:
    """Twice as many take twice the requests, not four times. By a clock of its own: a turn takes two seconds."""
    most, queue, seconds = 64, 256, 2.0
    line, tries, running, waiting = Line(most + queue), [0] * count, 0, 0
    events = [(0.0, number, True) for number in range(count)]
    while events:
        now, number, comes = heapq.heappop(events)
        if comes:
            tries[number] += 1
            if running == most and waiting == queue:
                heapq.heappush(events, (now + line.later(now), number, True))
                continue
            waiting += 1
        else:
            running -= 1
            line.moves(nobody_waits=not waiting)
        if waiting and running < most:
            waiting, running = waiting - 1, running + 1
            heapq.heappush(events, (now + seconds, number, False))
    assert sum(tries) < 4 * count
    assert max(tries) <= 10
    assert now < 1.1 * count * seconds / most, "nor is the model idle meanwhile"
