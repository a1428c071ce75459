"""SIGTERM means: commit a checkpoint and leave. One pod may get it alone, so all ranks must agree on the step."""

from __future__ import annotations

import signal
from types import FrameType


class StopSignal:
    """`asked` is this process's own flag; agree on it by `ProcessGroup.any` before acting."""

    def __init__(self) -> None:
        self.asked = False

    def listen(self) -> None:
        """From now on; before, SIGTERM ends the process at once."""
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
