"""While the demo waits, it says for what and for how long."""

from __future__ import annotations

import re
import threading

import pytest
from demo import alive, progress


def test_what_takes_its_time_is_told_at_once_and_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alive, "INTERVAL", 0.05)
    asked = [threading.Event(), threading.Event()]

    def state() -> str:
        next((event for event in asked if not event.is_set()), asked[0]).set()
        return "pulling"

    with alive.alive("waiting for the pod", state):
        assert all(event.wait(60) for event in asked)
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "  waiting for the pod …"
    assert re.fullmatch(r"  waiting for the pod for \d+ s: pulling", second)


def test_a_line_that_stays_the_same_says_for_how_long() -> None:
    assert progress.unchanged("Pending", 3.2) == "Pending"
    assert progress.unchanged("Pending", 31.7) == "Pending  (32 s)"
