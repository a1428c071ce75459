"""Starts a process for each tracker beside rank 0, hears what they complain of, and ends them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from llm_trainer.config import StageConfig, Tracker, kind_of, settings_of
from llm_trainer.config.tracking import KEYS, variable
from llm_trainer.report.page import flat, shortened
from llm_trainer.runtime.history import HISTORY
from llm_trainer.runtime.progress import Board

LIBRARIES = "/opt/trackers"  # of the image; what is not there is told
END_SECONDS = 10.0  # for what is still to be told when the stage has ended
PARAMETERS = 100


class Trackers:
    """Of one attempt; a tracker that can't be started is a notice."""

    def __init__(self, config: StageConfig, board: Board) -> None:
        self._board, self._ending = board, False
        self.processes: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []
        for index, tracker in enumerate(config.tracking):
            try:
                self._start(config, index, tracker)
            except OSError as error:
                board.notice("TrackerFailed", f"spec.tracking[{index}].{tracker.kind}: {error}; the training goes on")
        board.at_end.append(self.end)

    def _start(self, config: StageConfig, index: int, tracker: Tracker) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "llm_trainer.tracking.follow"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment(tracker, index),
        )  # fmt: skip
        self.processes.append(process)
        assert process.stdin  # noqa: S101 -- a pipe
        process.stdin.write(json.dumps(asked(config, tracker)) + "\n")
        process.stdin.flush()
        thread = threading.Thread(target=self._hear, args=(process, index, tracker.kind), daemon=True)
        thread.start()
        self._threads.append(thread)

    def _hear(self, process: subprocess.Popen[str], index: int, kind: str) -> None:
        """One notice, whatever goes wrong and how often."""
        told = False
        for line in process.stdout or ():
            if not told:
                self._notice(index, kind, line.strip())
            told = True
        if (code := process.wait()) and not told:
            late = "the stage has ended, and its last figures could not be told in time"
            self._notice(index, kind, late if self._ending else f"its process ended with {code}")

    def _notice(self, index: int, kind: str, why: str) -> None:
        message = f"spec.tracking[{index}].{kind}: {why[:500]}; the training goes on"
        self._board.notice("TrackerFailed", message)

    def end(self, seconds: float = END_SECONDS) -> None:
        """Let them tell what is left, for so long at most."""
        self._ending = True
        for process in self.processes:
            if process.stdin and not process.stdin.closed:
                try:
                    process.stdin.close()
                except OSError:
                    continue  # it has ended before
        until = time.monotonic() + seconds
        for process in self.processes:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        for thread in self._threads:
            thread.join(1.0)


def environment(tracker: Tracker, index: int) -> dict[str, str]:
    """Its libraries before the image's, which has other versions of some; its own credentials alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLM_TRACKER_")}
    for key in KEYS[tracker.kind]:
        if value := os.environ.get(variable(index, key)):
            kept[key] = value
    paths = [os.environ.get("LLM_TRACKERS", LIBRARIES), str(Path(__file__).parents[2])]
    # what spec.pods sets as `WANDB_…` or a proxy is the user's; what asks a terminal, or tells others, is not wanted
    quiet = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_ERROR_REPORTING": "false", "OMP_NUM_THREADS": "1",
             "MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
             "MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}  # fmt: skip
    return {**quiet, **kept, "PYTHONPATH": ":".join(paths)}


def asked(config: StageConfig, tracker: Tracker) -> dict[str, Any]:
    """What the process is told: in JSON, as it imports nothing of the trainer that needs a library."""
    settings = settings_of(config)
    written = settings.model_dump(mode="json", by_alias=True, exclude_defaults=True) if settings else {}
    parameters = {path: shortened(value) for path, value in list(flat(written))[:PARAMETERS]}
    chosen = getattr(tracker, tracker.kind)
    return {
        "kind": tracker.kind,
        "settings": chosen.model_dump(mode="json", by_alias=True),
        "history": f"{config.stage_folder}/{HISTORY}",
        "folder": config.run_folder,
        "training": config.training,
        "namespace": config.namespace,
        "uid": config.uid,
        "stage": config.stage,
        "attempt": config.attempt,
        "parameters": {"kind": kind_of(config), "nodes": config.nodes, **parameters},
    }
