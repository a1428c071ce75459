"""Writes report.html and report.md into the run folder, never at the cost of the training."""

from __future__ import annotations

import time
from pathlib import Path

from llm_trainer.checkpoint.fence import Fence
from llm_trainer.checkpoint.files import write_durably
from llm_trainer.config import StageConfig
from llm_trainer.report.blocks import to_html, to_markdown
from llm_trainer.report.page import blocks, title
from llm_trainer.report.records import read_run
from llm_trainer.runtime.progress import Board

HTML, MARKDOWN = "report.html", "report.md"
SHARE = 0.01  # of the time that writing it may take while a stage runs


class Reporter:
    """Of rank 0 of one attempt."""

    def __init__(self, config: StageConfig, board: Board) -> None:
        self._config, self._board = config, board
        self._cost, self._written = 0.0, 0.0  # seconds that the last one took, and when it was done
        self._failed = False

    def write_if_cheap(self) -> None:
        """Unless the one before took more than a hundredth of the time since."""
        if time.monotonic() - self._written >= self._cost / SHARE:
            self.write()

    def write(self, problem: str = "") -> None:
        """`problem`: how this attempt ended, if it failed.

        A failure is a notice, once: a report is no reason to lose a training.
        """
        began = time.monotonic()
        try:
            if Fence(self._config).problem() is None:
                write_report(Path(self._config.run_folder), problem)
        except Exception as error:  # noqa: BLE001 -- whatever a folder holds or a volume does
            if not self._failed:
                why = f"{type(error).__name__}: {error}"[:300]
                self._board.notice("ReportNotWritten", f"{HTML} of {self._config.run_uri}: {why}; the training goes on")
            self._failed = True
        self._written = time.monotonic()
        self._cost = self._written - began


def write_report(run_folder: Path, problem: str = "") -> None:
    run = read_run(run_folder)
    told = list(blocks(run, problem))
    write_durably(run_folder / HTML, to_html(title(run), told))
    write_durably(run_folder / MARKDOWN, to_markdown(title(run), told))
