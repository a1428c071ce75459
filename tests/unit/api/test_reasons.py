from __future__ import annotations

import re
from pathlib import Path

from llm_operator.api.reasons import Reason

PAGE = Path(__file__).parents[3] / "docs" / "reasons.md"


def test_every_reason_is_explained() -> None:
    text = PAGE.read_text()
    assert [reason for reason in Reason if f"`{reason}`" not in text] == []


def test_nothing_else_is_explained() -> None:
    """Of the tables; beside them stand the names of notices, which are the trainer's."""
    cells = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    told = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert len(told) > 50
    assert told <= set(Reason)
