"""Where the time goes from a pod's start to its first step; the same seconds decide how fast a training is back."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Imports leave no garbage: to look for it takes a fifth of their time, and it need never be looked for again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class Startup:
    """Parts in the order in which they were reached. Created as the launcher begins; each process goes on by itself."""

    def __init__(self) -> None:
        self.began = self._last = time.monotonic()
        self.parts: dict[str, float] = {}  # seconds
        self.done = False

    def reached(self, part: str) -> None:
        """The seconds since the part before belong to this one."""
        now = time.monotonic()
        self.parts[part] = self.parts.get(part, 0.0) + now - self._last
        self._last = now

    def first_step(self) -> str | None:
        """One line at the first step; None at later ones."""
        if self.done:
            return None
        self.done = True
        self.reached("first step")
        used = os.times()
        parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in self.parts.items())
        return f"started in {self._last - self.began:.2f} s ({used.user + used.system:.2f} CPU s): {parts}"
