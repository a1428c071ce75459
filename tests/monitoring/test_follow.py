"""What a tracker's process reads of a history, and what it tells of a row."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.runtime.history import History
from llm_trainer.tracking import follow


def test_no_row_is_told_twice_whatever_becomes_of_the_file(tmp_path: Path) -> None:
    """As a rollback writes it anew while it is read."""
    file = tmp_path / "history.jsonl"
    writer, reader = History(file, 1), follow.History(file, 1)
    assert reader.rows() == []
    for step in range(1, 6):
        writer.append(step, loss=1.0)
        time.sleep(0.002)
    with file.open("a") as stream:
        stream.write('{"step": 6, "ti')  # is being written
    assert [row["step"] for row in reader.rows()] == [1, 2, 3, 4, 5]
    writer.cut_after(3)
    writer.append(4, loss=2.0)
    assert [row["loss"] for row in reader.rows()] == [2.0]
    History(file, 2).append(5, loss=3.0)
    assert reader.rows() == [], "another attempt's tracker tells it"
    file.unlink()
    assert reader.rows() == []


def test_what_is_told_of_a_row() -> None:
    row: dict[str, Any] = {
        "step": 1, "loss": "NaN", "applied": True, "figures": {"kl": 1, "bad": None, "x": [1]},
        "evaluation": {"loss": 2}, "samples": [], "spent": 3,
        "scores": [{"task": "tiny", "metric": "acc", "value": 0.5}, "junk"],
    }  # fmt: skip
    told = follow.figures(row)
    assert math.isnan(told.pop("loss"))
    assert told == {"kl": 1, "heldOut/loss": 2, "score/tiny/acc": 0.5}


def test_a_reader_that_is_far_behind_takes_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "MOST_BYTES", 1000)
    file = tmp_path / "history.jsonl"
    file.write_text("".join(json.dumps({"step": n, "time": n + 1, "attempt": 1, "loss": 1}) + "\n" for n in range(999)))
    reader = follow.History(file, 1)
    found = reader.rows()
    assert found[-1]["step"] == 998
    assert len(found) < 30
    assert reader.left_out
