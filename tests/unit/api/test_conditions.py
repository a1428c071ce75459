"""Times as Kubernetes writes them, and as people do."""

from __future__ import annotations

import pytest

from llm_operator.api.conditions import seconds_of, timestamp


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000Z", "2026-01-01T01:00:00+01:00"])
def test_a_time(text: str) -> None:
    assert timestamp(seconds_of(text)) == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "99999-01-01", "0001-01-01T00:00:00+23:59"])
def test_what_is_no_time_is_long_ago(text: str) -> None:
    """In a status that somebody has edited: no reason to look away from the training."""
    assert seconds_of(text) <= 0.0
