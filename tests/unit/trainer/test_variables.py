"""Variables of a pod: what no program could go by is told by its name."""

from __future__ import annotations

import pytest

from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.variables import seconds
from llm_trainer.runtime.watchdog import Watchdog

NAME = "LLM_HANG_SECONDS"


@pytest.mark.parametrize(("given", "told"), [("", 300), (" ", 300), ("5", 5), ("0", 0), ("1.5", 1.5), ("1e3", 1000)])
def test_seconds(given: str, told: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, given)
    assert seconds(NAME, 300) == told


@pytest.mark.parametrize("given", ["soon", "-1", "nan", "5m", "1,000"])
def test_what_is_no_number_of_seconds(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, given)
    with pytest.raises(ConfigurationError) as raised:
        Watchdog(1800.0)
    assert str(raised.value) == f"spec.pods.env {NAME}: {given!r} is no number of seconds; write one, as 300"
