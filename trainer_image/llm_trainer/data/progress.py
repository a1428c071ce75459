"""How far data preparation is, over all processes that do it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llm_trainer.data.sharing import Sharing

PHASES = ("Documents", "Quality", "Tokenizer", "Tokens")
SHOWN_BYTES = 1 << 20  # of text between two reports
LOOK_SECONDS = 2.0  # between two looks what the others have made


@dataclass(frozen=True, slots=True)
class Step:
    """How far all processes together are in a phase: `done` and `total` in bytes of text and bytes of files."""

    phase: str  # one of `phases`
    done: int
    total: int
    tokens: int = 0
    phases: tuple[str, ...] = PHASES  # of the preparation, in their order
    units: int = 0  # pieces of work that are made
    total_units: int = 0


Report = Callable[[Step], None]


class Speed:
    """Bytes in a second since the phase began, and how long what is left takes so; later phases read the same bytes."""

    def __init__(self) -> None:
        self._phase, self._began, self._first = "", 0.0, 0

    def of(self, step: Step, now: float) -> tuple[float | None, float | None]:
        """What was there when the phase began is not counted. None where nothing is known yet."""
        if step.phase != self._phase:
            self._phase, self._began, self._first = step.phase, now, step.done
        seconds, made = now - self._began, step.done - self._first
        if seconds <= 0 or made <= 0:
            return None, None
        later = len(step.phases) - step.phases.index(step.phase) - 1
        return made / seconds, (step.total * (1 + later) - step.done) * seconds / made


class Meter:
    """What is made by all, which is looked up from time to time, and what this process is at."""

    def __init__(self, report: Report, *, quality: bool) -> None:
        self._report = report
        self._phases = tuple(phase for phase in PHASES if quality or phase != "Quality")
        self._phase = self._phases[0]
        self._sharing: Sharing | None = None
        self._sizes: Mapping[str, int] = {}
        self._tokens_of: Callable[[Path], int] = lambda _: 0
        self._made: dict[str, int] = {}  # tokens of what is made, by key
        self._own = self._shown = self._own_tokens = 0
        self._looked = 0.0

    def begin(
        self,
        phase: str,
        sizes: Mapping[str, int],
        sharing: Sharing,
        tokens_of: Callable[[Path], int],
    ) -> None:
        """`sizes`: bytes of each piece of the phase; `tokens_of`: how many tokens a piece that is made has."""
        self._phase, self._sizes, self._sharing, self._tokens_of = phase, sizes, sharing, tokens_of
        self._made = {}
        self._own = self._shown = self._own_tokens = 0

    def piece(self) -> None:
        """Another one is begun by this process: what it was at is made."""
        self._own = self._shown = self._own_tokens = 0
        self.look()

    def add(self, size: int, tokens: int = 0) -> None:
        self._own += size
        self._own_tokens += tokens
        if self._own - self._shown >= SHOWN_BYTES:
            self._shown = self._own
            self.show()

    def look(self) -> None:
        """What is made by now."""
        if self._sharing is None:
            return
        self._looked = time.monotonic()
        for key in self._sharing.done(self._phase):
            if key not in self._made and key in self._sizes:
                folder = self._sharing.path(self._phase, key)
                self._made[key] = self._tokens_of(folder)

    def end(self) -> None:
        """Of the phase."""
        self.piece()
        self.show()

    def show(self) -> None:
        """Raises to leave."""
        if self._own and time.monotonic() - self._looked >= LOOK_SECONDS:
            self.look()
        total = sum(self._sizes.values())
        done = sum(self._sizes[key] for key in self._made) + self._own
        tokens = sum(self._made.values()) + self._own_tokens
        self._report(
            Step(self._phase, min(done, total), total, tokens, self._phases, len(self._made), len(self._sizes))
        )
