"""How things are written to a terminal: words, numbers, bars and trees. Pure but for `Screen`."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO

GOOD, BAD, WAITING, DIM = "32", "31", "33", "2"  # SGR parameters
COLOURS = {
    **dict.fromkeys(("Succeeded", "Ready", "Serving", "Indexed", "Evaluated"), GOOD),
    **dict.fromkeys(("Failed", "Invalid", "PluginError", "IndexFailed", "EvaluationError", "ThresholdMissed"), BAD),
    **dict.fromkeys(
        (
            "Pending",
            "Suspended",
            "Starting",
            "Restarting",
            "Waiting",
            "RollingOut",
            "Indexing",
            "Evaluating",
            "Degraded",
            "HeldBack",
        ),
        WAITING,
    ),
}


@dataclass(frozen=True)
class Style:
    colour: bool

    def word(self, text: str) -> str:
        """A state, in its colour."""
        return self.paint(text, COLOURS.get(text, ""))

    def dim(self, text: str) -> str:
        return self.paint(text, DIM)

    def paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code and text else text


PLAIN = Style(colour=False)


def style(stream: IO[str]) -> Style:
    """Colour on a terminal alone, and never where NO_COLOR is set (no-color.org)."""
    wanted = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Style(colour=wanted)


def clean(text: object) -> str:
    """One line without control characters: what pods have said must not steer a terminal."""
    return "".join(c if unicodedata.category(c)[0] != "C" else " " for c in str(text)).strip()


def bar(done: float, width: int = 20) -> str:
    """``done``: 0 to 1."""
    full = int(min(max(done, 0.0), 1.0) * width)
    return f"[{'#' * full}{'-' * (width - full)}]"


def amount(number: float) -> str:
    """1234567 → 1.2M."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:g}"


def duration(seconds: float) -> str:
    """As kubectl's ages: two units at most."""
    left, words = max(0, round(seconds)), []
    for size, letter in ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if left >= size:
            words.append(f"{left // size}{letter}")
            left %= size
    return "".join(words[:2]) or "0s"


def seconds_between(start: str | None, end: str | None, now: datetime) -> float | None:
    """Of two RFC 3339 times; an end that isn't there is now. None where a time can't be read."""
    try:
        began = datetime.fromisoformat(start or "")
        ended = datetime.fromisoformat(end) if end else now
        return (ended - began).total_seconds()
    except (ValueError, TypeError):
        return None


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Tree:
    """A line and what belongs to it."""

    line: str
    children: list[Tree] = field(default_factory=list)

    def add(self, line: str) -> Tree:
        child = Tree(line)
        self.children.append(child)
        return child

    def lines(self) -> list[str]:
        found = [self.line]
        for child in self.children:
            last = child is self.children[-1]
            first, *rest = child.lines()
            found.append(f"{'└─' if last else '├─'} {first}")
            found += [f"{'   ' if last else '│  '}{line}" for line in rest]
        return found


def table(rows: list[list[str]]) -> list[str]:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


@dataclass
class Screen:
    """Redraws lines in place, never an empty screen between two of them; what is no terminal gets what is new."""

    stream: IO[str] = sys.stdout
    drawn: list[str] = field(default_factory=list)

    def draw(self, lines: list[str]) -> None:
        if not self.stream.isatty():
            for line in lines:
                if line not in self.drawn:
                    self.stream.write(f"{line}\n")
        else:
            width, height = shutil.get_terminal_size()
            shown = [line[:width] for line in lines[: height - 1]]
            up = f"\x1b[{len(self.drawn)}A" if self.drawn else ""
            self.stream.write(up + "".join(f"\r{line}\x1b[K\n" for line in shown) + "\x1b[J")
            lines = shown
        self.stream.flush()
        self.drawn = lines
