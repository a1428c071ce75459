"""Curves of bounded size, however many steps a stage has."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

POINTS = 240  # of a curve, at most


@dataclass
class Point:
    """Of neighbouring steps: the first and last of them, and what was seen."""

    first: int
    last: int
    low: float
    high: float
    total: float
    count: int
    missing: int = 0  # steps whose figure was no number

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else math.nan


@dataclass
class Curve:
    """Whenever there are too many points, each two neighbours become one."""

    points: list[Point] = field(default_factory=list)
    _each: int = 1  # figures of a point

    def see(self, step: int, value: float) -> None:
        finite = math.isfinite(value)
        new = Point(step, step, value, value, value, 1) if finite else Point(step, step, math.inf, -math.inf, 0, 0, 1)
        if self.points and self.points[-1].count + self.points[-1].missing < self._each:
            self.points[-1] = joined(self.points[-1], new)
            return
        self.points.append(new)
        if len(self.points) > POINTS:
            pairs = [self.points[at : at + 2] for at in range(0, len(self.points), 2)]
            self.points = [joined(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
            self._each *= 2

    @property
    def known(self) -> list[Point]:
        """Those with any number."""
        return [point for point in self.points if point.count]

    def summary(self) -> str:
        """First to last, lowest to highest, in few words."""
        known = self.known
        if not known:
            return "no number"
        low, high = min(point.low for point in known), max(point.high for point in known)
        missing = sum(point.missing for point in self.points)
        more = f", {missing:,} times no number" if missing else ""
        return f"{known[0].mean:.4g} → {known[-1].mean:.4g} (lowest {low:.4g}, highest {high:.4g}{more})"


def joined(one: Point, other: Point) -> Point:
    return Point(
        one.first,
        other.last,
        min(one.low, other.low),
        max(one.high, other.high),
        one.total + other.total,
        one.count + other.count,
        one.missing + other.missing,
    )
