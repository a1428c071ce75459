"""history.jsonl: every step's figures, on the storage, so that a gap in scraping loses nothing."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_trainer.runtime.phases import PhaseClock

HISTORY = "history.jsonl"  # in a stage's folder
MOST_ATTEMPTS = 100  # whose times are kept when their rows are dropped


def dump_json(value: Any) -> str:
    """As `protocol.Message` writes it: what is no number in JSON is one of "NaN", "Infinity" and "-Infinity"."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


class History:
    """Rows have step, time, attempt and one of: loss, learningRate, gradNorm, tokensPerSecond; evaluation; spent;
    action and message (what the loss watch did); read (tokens by source since the stage began).

    `spent`: seconds of the attempt so far by phase, and `began`, when its pod did, in seconds since the epoch.
    """

    def __init__(self, file: Path, attempt: int) -> None:
        self.file, self.attempt = file, attempt

    def cut_after(self, step: int) -> list[dict[str, Any]]:
        """Drop rows of steps that will be made again after a resume, and a row that a crash left half-written.

        Returns the dropped ones.
        """
        dropped: list[dict[str, Any]] = []
        if not self.file.exists():
            return dropped
        temporary = self.file.with_suffix(".tmp")
        with temporary.open("w") as kept:  # row by row: a long stage has millions
            for row in read_rows(self.file):
                if row["step"] > step:
                    dropped.append(row)
                else:
                    kept.write(dump_json(row) + "\n")
        os.replace(temporary, self.file)  # noqa: PTH105 -- atomic
        return dropped

    def begin(self, step: int | None, clock: PhaseClock) -> float:
        """Go on at `step`, or anew; the seconds of work that is made again.

        The first row of an attempt tells of what is dropped here, and when the attempts were that had made it.
        """
        dropped = self.cut_after(-1 if step is None else step)
        lost, more = 0.0, {}
        if dropped:
            made = [row for row in dropped if "loss" in row and "time" in row]
            times = [row["time"] for row in made]
            lost = max(times) - min(times) if times else 0.0
            what = {"steps": len({row["step"] for row in made}), "seconds": round(lost, 3), "attempts": ends(dropped)}
            more = {"lost": what}
        self.append(step or 0, began=round(clock.began, 3), spent=clock.seconds(), **more)
        return lost

    def spent(self, step: int, clock: PhaseClock) -> None:
        self.append(step, began=round(clock.began, 3), spent=clock.seconds())

    def actions(self) -> list[dict[str, Any]]:
        """The rows that have one."""
        return [row for row in read_rows(self.file) if "action" in row]

    def append(self, step: int, **figures: Any) -> None:
        row = {"step": step, "time": round(time.time(), 3), "attempt": self.attempt, **figures}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as file:
            file.write(dump_json(row) + "\n")


def ends(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each attempt of these rows what is known of its time: when it began, its last row, and what it spent."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        for one in [*row.get("lost", {}).get("attempts", []), row]:
            if "attempt" not in one or "time" not in one:
                continue  # of a trainer that wrote less
            end = found.setdefault(one["attempt"], {"attempt": one["attempt"]})
            end |= {name: one[name] for name in ("began", "time", "spent") if name in one}
    return list(found.values())[-MOST_ATTEMPTS:]


def read_rows(file: Path) -> Iterator[dict[str, Any]]:
    """None where there is no file; what a crash left half-written is passed over."""
    if file.exists():
        with file.open(errors="replace") as lines:
            yield from (row for line in lines if (row := _parse(line)))


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
