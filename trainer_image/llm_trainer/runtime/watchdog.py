"""A process that makes no step for too long prints its stacks and ends, so that the stage can start again.

How long that is follows from the steps themselves. What takes longer than they do is announced (`long`), and gives
signs of life of its own.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from llm_trainer.protocol import ExitCode
from llm_trainer.runtime.variables import seconds

LEAST_SECONDS = 300.0  # a network or a volume that is away for a moment is no hang
TIMES = 5  # as long as the longest of the last steps
SEEN_STEPS = 50
FIRST_STEPS = 3  # in which kernels are compiled and memory is found


class Watchdog:
    """`beat()` at every sign of life. Nothing happens before the first beat: start-up has no bound of its own.

    ``patience_seconds``: from one sign of life to the next in the first steps, and in what is announced.
    """

    def __init__(self, patience_seconds: float, least_seconds: float | None = None) -> None:
        """``least_seconds``: LEAST_SECONDS by default, or $LLM_HANG_SECONDS; ConfigurationError for a bad one."""
        least = seconds("LLM_HANG_SECONDS", LEAST_SECONDS) if least_seconds is None else least_seconds
        self.patience_seconds, self._least = patience_seconds, least
        self._last: float | None = None
        self._steps: deque[float] = deque(maxlen=SEEN_STEPS)
        self._long = 0  # announcements, one within another
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def beat(self) -> None:
        self._last = time.monotonic()

    def stepped(self, seconds: float) -> None:
        """A step was made, which took so long."""
        self._steps.append(seconds)
        self.beat()

    @contextmanager
    def long(self) -> Iterator[None]:
        """What may take longer than a step: an evaluation, a checkpoint, a result."""
        self.beat()
        self._long += 1
        try:
            yield
        finally:
            self._long -= 1
            self.beat()

    @property
    def limit_seconds(self) -> float:
        """From the last sign of life on."""
        if self._long or len(self._steps) < FIRST_STEPS:
            return self.patience_seconds
        return max(self._least, TIMES * max(self._steps))

    def _watch(self) -> None:
        while True:
            time.sleep(min(5.0, self.limit_seconds / 4))
            limit, last = self.limit_seconds, self._last
            if last is None or (silent := time.monotonic() - last) <= limit:
                continue
            print(f"no sign of life for {silent:.0f} s, {limit:.0f} s are the most; stacks follow", file=sys.stderr)
            sys.stderr.flush()
            faulthandler.dump_traceback(all_threads=True)
            os._exit(ExitCode.HANG)
