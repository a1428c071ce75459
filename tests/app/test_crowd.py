"""A crowd before an app: all are answered, nobody's answer is another's, and the server's memory has an end."""

from __future__ import annotations

import pytest

from llm_app.door import MOST_LATER, Turnstile
from llm_app.requests import RequestError
from tests.app.crowd import comes

MOST_MIB = 400  # of a replica


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.release)])
async def test_a_crowd_is_answered_whole(count: int) -> None:
    seen = await comes(count)
    assert not seen.wrong
    assert seen.answered == count
    assert seen.most == 64, "no more than that at a time"
    assert max(seen.tries) > 1, "some were told to come again"
    assert seen.memory < MOST_MIB, (seen.before, seen.memory)
    assert "llm_app_waiting_requests 0.0" in seen.after


def test_who_is_refused_at_the_same_time_is_told_to_come_at_several() -> None:
    """In groups for which there is a place."""
    now = 10.0
    door = Turnstile(2, 3, 1000, clock=lambda: now)
    told: list[int] = []

    def refused(times: int) -> None:
        for _ in range(times):
            with pytest.raises(RequestError) as error, door.admitted(1001):
                raise AssertionError("it has no room for this")
            told.append(error.value.retry_seconds)

    refused(14)
    assert told == [1] * 4 + [2] * 5 + [3] * 5
    refused(10_000)
    assert told[-1] == MOST_LATER
    now = 11.0
    refused(1)
    assert told[-1] == 1
