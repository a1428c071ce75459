from __future__ import annotations

from pathlib import Path

from llm_operator.api.reasons import Reason

PAGE = Path(__file__).parents[3] / "docs" / "reasons.md"


def test_every_reason_is_explained() -> None:
    text = PAGE.read_text()
    assert [reason for reason in Reason if f"`{reason}`" not in text] == []
