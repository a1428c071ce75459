"""A process that makes no step for too long prints its stacks and ends, so that the stage can start again."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time

from llm_trainer.protocol import ExitCode


class Watchdog:
    """`beat()` at every sign of life. Nothing happens before the first beat: start-up has no bound of its own."""

    def __init__(self, limit_seconds: float = 1800) -> None:
        self.limit_seconds = limit_seconds
        self.last: float | None = None
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def beat(self) -> None:
        self.last = time.monotonic()

    def _watch(self) -> None:
        while True:
            time.sleep(min(5.0, self.limit_seconds / 4))
            if self.last is not None and time.monotonic() - self.last > self.limit_seconds:
                print(f"no sign of life for {self.limit_seconds:.0f} s; stacks follow", file=sys.stderr, flush=True)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(ExitCode.HANG)
