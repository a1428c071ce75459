"""Rows have a digest of their own, whatever holds them, and every change of one changes it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import Dataset

from llm_trainer.runtime.process_group import ProcessGroup
from llm_trainer.stages.fingerprints import digest_of

ALONE = ProcessGroup(0, 0, 1, torch.device("cpu"))
ROWS: list[dict[str, Any]] = [
    {"input_ids": [1, 2, 3], "margin": 0.5, "text": "a", "turns": [{"role": "user", "content": "b"}]},
    {"input_ids": [4], "margin": 1.0, "text": "c", "turns": []},
    {"input_ids": [], "margin": -1.0, "text": None, "turns": [{"role": "user", "content": "d"}]},
]


def changed(place: int, **values: Any) -> list[dict[str, Any]]:
    return [{**row, **values} if index == place else row for index, row in enumerate(ROWS)]


@pytest.mark.parametrize("held", [Dataset.from_list, list], ids=["dataset", "list"])
@pytest.mark.parametrize(
    "other",
    [
        changed(0, input_ids=[1, 2, 4]),
        changed(0, input_ids=[1, 2]),
        changed(1, input_ids=[]),  # the same tokens, in other rows
        changed(1, margin=1.5),
        changed(1, text="C"),
        changed(2, text="c"),
        changed(0, turns=[{"role": "user", "content": "B"}]),
        ROWS[::-1],
        ROWS[:2],
        ROWS * 400,
    ],
    ids=str,
)
def test_a_change_is_seen(held: Any, other: list[dict[str, Any]]) -> None:
    other = other if len(other) < 1000 else [*other[:-1], {**other[-1], "text": "z"}]
    base = ROWS if len(other) < 1000 else ROWS * 400
    assert digest_of(held(base), ALONE) == digest_of(held(list(base)), ALONE)
    assert digest_of(held(other), ALONE) != digest_of(held(base), ALONE)


def test_how_arrow_keeps_the_rows_does_not_matter() -> None:
    """Of a view of some rows, of chunks, and beside columns that a trainer adds."""
    rows = Dataset.from_list([*ROWS, *ROWS])
    assert digest_of(rows.select([3, 4, 5]), ALONE) == digest_of(Dataset.from_list(ROWS), ALONE)
    assert digest_of(rows.add_column("ref_logps", [0.1] * 6), ALONE) == digest_of(rows, ALONE)
