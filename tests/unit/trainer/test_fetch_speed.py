"""How long a fetching takes yet."""

from __future__ import annotations

from llm_trainer.storage.speed import Speed


def test_what_was_there_already_is_soon_not_taken_for_speed() -> None:
    """An attempt that goes on counts at its beginning what others have fetched."""
    now = [0.0]
    speed = Speed(lambda: now[0])
    assert speed.figures(0, 1_000_000)["eta_seconds"] is None
    done = 900_000
    for _ in range(62):
        now[0] += 1
        done += 100
        told = speed.figures(done, 1_000_000)
    assert told["eta_seconds"] == (1_000_000 - done) / 100
    assert told["step"] == 90


def test_a_server_that_sends_nothing_for_a_minute_has_no_end() -> None:
    now = [0.0]
    speed = Speed(lambda: now[0])
    for second in range(10):
        now[0] = float(second)
        speed.figures(100 * second, 10_000)
    for second in range(10, 75):
        now[0] = float(second)
        told = speed.figures(900, 10_000)
    assert told["eta_seconds"] is None


def test_what_is_listed_anew_begins_anew() -> None:
    now = [0.0]
    speed = Speed(lambda: now[0])
    speed.figures(5000, 10_000)
    now[0] = 1.0
    assert speed.figures(0, 8000)["eta_seconds"] is None
    now[0] = 3.0
    assert speed.figures(2000, 8000)["eta_seconds"] == 6
