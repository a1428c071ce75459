"""Where the seconds go from a container's start to vLLM's first answer. Pure but for the clock that it is given.

Of the parts vLLM tells itself: it writes how long it took to load the weights, and then to set up its engine, with what
torch.compile took of it. What it doesn't write isn't guessed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

LOADS = re.compile(r"Starting to load model ")
LOADED = re.compile(r"(?:Loading weights took|Model loading took .* memory and) (\d+\.\d+) seconds")
SET_UP = re.compile(r"init engine \([^)]*\) took (\d+\.\d+) s(?: \(compilation: (\d+\.\d+) s)?")
LONGEST_LINE = 1000  # of which anything is read


class Startup:
    """Reads vLLM's output line by line until it has answered. Of several processes the slowest counts."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self.parts: dict[str, float] = {}  # seconds, as /start tells them

    @property
    def done(self) -> bool:
        return "totalSeconds" in self.parts

    def read(self, line: str) -> None:
        if self.done or len(line) > LONGEST_LINE:
            return
        if LOADS.search(line):
            if "importSeconds" not in self.parts:
                self.parts["importSeconds"] = self._clock() - self._began
        elif told := LOADED.search(line):
            self._slowest("loadSeconds", float(told[1]))
        elif told := SET_UP.search(line):
            compiled = float(told[2] or 0)
            self._slowest("warmUpSeconds", max(0.0, float(told[1]) - compiled))
            if told[2]:
                self._slowest("compileSeconds", compiled)

    def _slowest(self, part: str, seconds: float) -> None:
        self.parts[part] = max(seconds, self.parts.get(part, 0.0))

    def answered(self) -> None:
        if not self.done:
            self.parts["totalSeconds"] = self._clock() - self._began
