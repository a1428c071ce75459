"""history.jsonl: every step's figures, on the storage, so that a gap in scraping loses nothing."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any


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
    """Rows have step, time, attempt and either loss, learningRate, gradNorm, tokensPerSecond, or evaluation."""

    def __init__(self, file: Path, attempt: int) -> None:
        self.file, self.attempt = file, attempt

    def cut_after(self, step: int) -> None:
        """Drop rows of steps that will be made again after a resume, and a row that a crash left half-written."""
        if not self.file.exists():
            return
        rows = [row for line in self.file.read_text().splitlines() if (row := _parse(line)) and row["step"] <= step]
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text("".join(dump_json(row) + "\n" for row in rows))
        os.replace(temporary, self.file)  # noqa: PTH105 -- atomic

    def append(self, step: int, **figures: Any) -> None:
        row = {"step": step, "time": round(time.time(), 3), "attempt": self.attempt, **figures}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as file:
            file.write(dump_json(row) + "\n")


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and "step" in row else None
