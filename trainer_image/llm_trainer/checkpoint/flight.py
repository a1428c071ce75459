"""A checkpoint on its way from memory to the disk, written by a thread while the training goes on.

A thread and no process: writing and hashing leave Python's lock, and a fork of a process with a GPU or with threads in
the middle of a collective isn't safe. It takes no part in any collective: all ranks agree when the training asks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from llm_trainer.checkpoint.snapshot import Snapshot

PAUSE_SECONDS = 1.0  # between two signs of life


class Flight:
    """Of one process. `began`: by time.monotonic; the training waits for `wait` alone."""

    def __init__(self, step: int, folder: Path, snapshot: Snapshot, began: float) -> None:
        """``folder``: where it will be, once committed."""
        self.step, self.folder, self.snapshot, self.began = step, folder, snapshot, began
        self.problem: Exception | None = None
        self._thread = threading.Thread(target=self._write, name="checkpoint", daemon=True)
        self._thread.start()

    def _write(self) -> None:
        try:
            self.snapshot.write()
        except Exception as error:  # noqa: BLE001 -- whatever it is, all ranks must learn of it
            self.problem = error

    @property
    def written(self) -> bool:
        """By this process, well or not."""
        return not self._thread.is_alive()

    def wait(self, alive: Callable[[], None]) -> None:
        """Until it is written; ``alive`` is called while bytes are, so that a volume that hangs is seen."""
        before = -1
        while not self.written:
            self._thread.join(PAUSE_SECONDS)
            if (now := self.snapshot.progress.bytes) != before:
                before = now
                alive()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began
