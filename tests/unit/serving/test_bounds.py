"""The greatest status of a serving."""

from __future__ import annotations

import json

import pytest

from llm_operator.api.serving import LLMServingStatus
from llm_operator.serving.bounds import bounded

TIME = "2026-01-01T00:00:00Z"
LONG = 5000


def worst(letter: str) -> LLMServingStatus:
    uri = "pvc://" + letter * 1018
    conditions = [
        {"type": kind, "status": "False", "last_transition_time": TIME, "reason": "r" * 32, "message": letter * LONG}
        for kind in ("ModelAvailable", "AdaptersAvailable", "Progressing", "Ready")
    ]
    adapters = [
        {"name": f"{number:0253}", "uri": uri, "digest": "d" * 128, "step": 2**63 - 1, "state": "Starting",
         "reason": "r" * 32, "message": letter * LONG}
        for number in range(32)
    ]  # fmt: skip
    return LLMServingStatus.model_validate(
        {
            "url": "u" * 512, "model": {"uri": uri, "digest": "d" * 128, "step": 2**63 - 1}, "adapters": adapters,
            "startup": {"pod": "p" * 253, "totalSeconds": 1e10, "loadSeconds": 1e10},
            "selector": "s" * 256, "conditions": conditions,
        }
    )  # fmt: skip


@pytest.mark.parametrize("letter", ["x", "é", "語", "😀"])
def test_the_greatest_status(letter: str) -> None:
    """As docs/design.md says."""
    written = bounded(worst(letter)).model_dump(mode="json", by_alias=True)
    assert len(json.dumps(written, ensure_ascii=False).encode()) < 256 * 1024


def test_a_bounded_status_stays_as_it_is() -> None:
    once = bounded(worst("語"))
    assert bounded(once) == once
    assert once.adapters[0].message.endswith(" … (cut)")
