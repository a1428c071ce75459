"""What is written beside a training, on a volume that is full: a notice, once, and the training goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_trainer.checkpoint.fence import Fence
from llm_trainer.report.write import Reporter
from llm_trainer.runtime.history import HISTORY, History
from llm_trainer.runtime.progress import Board
from llm_trainer.tracking.start import Trackers
from tests.cluster.processes import wait
from tests.monitoring.trackers import READ_EVENTS, READ_WANDB, SECONDS, configured, libraries, read

__all__ = ["libraries"]


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """The claim `models`, a file system of 1 MiB."""
    models = tmp_path / "models"
    models.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", models], check=True)
    yield models
    subprocess.run(["umount", "--lazy", models], check=True)  # W&B's own process may end after its parent


def fill(volume: Path) -> Path:
    file = volume / "other"
    with file.open("wb", buffering=0) as out:
        try:
            while True:
                out.write(bytes(4096))
        except OSError:
            return file


def test_a_report_on_a_full_volume(volume: Path) -> None:
    config = configured(volume.parent)
    run = Path(config.run_folder)
    run.mkdir()
    Fence(config).claim()
    board = Board("base", 1)
    reporter = Reporter(config, board)
    reporter.write()
    before = (run / "report.html").read_bytes()
    other = fill(volume)
    reporter.write()
    reporter.write()
    (notice,) = board.progress.notices
    assert notice.reason == "ReportNotWritten"
    assert "No space left on device" in notice.message
    assert "pvc://models/run" in notice.message
    assert (run / "report.html").read_bytes() == before, "the one before stays whole"
    assert [file.name for file in run.glob(".*")] == [], "nothing half-written is left"
    other.unlink()
    (run / "report.html").unlink()
    reporter.write()
    assert (run / "report.html").read_bytes() == before, "it is written again when there is room"


@pytest.mark.parametrize(
    "tracker", [{"tensorboard": {}}, pytest.param({"wandb": {"project": "chat"}}, marks=pytest.mark.release)], ids=list
)
def test_a_tracker_on_a_full_volume(
    volume: Path, libraries: Path, monkeypatch: pytest.MonkeyPatch, tracker: dict[str, dict[str, str]]
) -> None:
    monkeypatch.setenv("LLM_TRACKERS", str(libraries))
    config = configured(volume.parent, tracker)
    Path(config.stage_folder).mkdir(parents=True)
    history = History(Path(config.stage_folder) / HISTORY, 1)
    for step in range(1, 9):
        history.append(step, loss=1 / step)
    other = fill(volume)
    board = Board("base", 1)
    trackers = Trackers(config, board)
    wait("the notice", lambda: board.progress.notices != [], SECONDS)
    other.unlink()
    trackers.end(SECONDS)
    (notice,) = board.progress.notices
    assert notice.reason == "TrackerFailed"
    assert "No space left on device" in notice.message
    assert "the training goes on" in notice.message
    if "wandb" in tracker:
        (file,) = Path(config.run_folder).glob("wandb/**/*.wandb")
        told = [row["step"] for row in read(libraries, READ_WANDB, file)]
    else:
        told = [step for step, _ in read(libraries, READ_EVENTS, f"{config.run_folder}/tensorboard/base")["loss"]]
    assert told == list(range(1, 9)), "all is told when there is room again"
