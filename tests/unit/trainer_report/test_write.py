"""A report is never written at the cost of the training, nor over another's."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from llm_trainer.checkpoint.fence import Fence
from llm_trainer.config import StageConfig
from llm_trainer.report import write
from llm_trainer.report.write import Reporter
from llm_trainer.runtime.progress import Board


@pytest.fixture
def config(tmp_path: Path) -> StageConfig:
    made = StageConfig.model_validate({
        "training": "t", "namespace": "n", "uid": "u", "stage": "base", "attempt": 1, "nodes": 1,
        "processesPerNode": 1, "device": "cpu", "volumesRoot": str(tmp_path), "runUri": "pvc://models/run",
    })  # fmt: skip
    Path(made.run_folder).mkdir(parents=True)
    Fence(made).claim()
    return made


def test_what_can_not_be_written_is_one_notice(config: StageConfig) -> None:
    """As on a full volume, or one that is read-only."""
    (Path(config.run_folder) / "report.html").mkdir()
    board = Board("base", 1)
    reporter = Reporter(config, board)
    reporter.write()
    reporter.write()
    (notice,) = board.progress.notices
    assert notice.reason == "ReportNotWritten"
    assert "pvc://models/run" in notice.message
    assert [file.name for file in Path(config.run_folder).glob(".*")] == [], "nothing half-written is left"


def test_who_has_lost_the_stage_writes_nothing(config: StageConfig) -> None:
    Fence(config.model_copy(update={"attempt": 2})).claim()
    Reporter(config, Board("base", 1)).write()
    assert not (Path(config.run_folder) / "report.html").exists()


def test_it_takes_a_hundredth_of_the_time(config: StageConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation after each step of a hundredth of a second, and pages that take half of one to write."""
    now, written = [1000.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def slow(*_: object) -> None:
        written.append(now[0])
        now[0] += 0.5

    monkeypatch.setattr(write, "write_report", slow)
    reporter = Reporter(config, Board("base", 1))
    for _ in range(20_000):
        now[0] += 0.01
        reporter.write_if_cheap()
    assert len(written) >= 3
    assert (len(written) - 1) * 0.5 <= 0.011 * (now[0] - 1000)
