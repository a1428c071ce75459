"""How much is fetched, as it is shown."""

from __future__ import annotations

import time

import pytest

from llm_trainer.storage import meter as meters
from llm_trainer.storage.meter import Meter


def test_what_arrived_is_shown_while_nothing_more_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "SHOW_SECONDS", 0.01)
    meter, shown = Meter(), list[tuple[int, int]]()
    with meter.shown(lambda *figures: shown.append(figures)):
        meter.listed(10)
        meter.more(3)
        meter.more(1)
        deadline = time.monotonic() + 30
        while (4, 10) not in shown:
            assert time.monotonic() < deadline, shown
            time.sleep(0.01)
        meter.more(6)
    assert shown[-1] == (10, 10)


def test_an_input_that_changed_is_counted_once() -> None:
    meter = Meter()
    meter.listed(10)
    meter.more(10)
    meter.listed(100)
    meter.more(70)
    meter.changed()
    assert meter.figures == (10, 10)
    meter.listed(50)
    meter.more(20)
    assert meter.figures == (30, 60)
