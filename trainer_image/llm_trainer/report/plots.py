"""Curves as inline SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from llm_trainer.report.curves import Curve, Point
from llm_trainer.runtime.html_page import text

WIDTH, HEIGHT = 320, 110
SPAN_LIMIT = 1e300  # of values: their differences must be numbers


def plot(name: str, curve: Curve, marks: Sequence[tuple[int, str]] = ()) -> str:
    """Means as a line, lowest to highest as a band. `marks`: steps with what happened there."""
    known = [point for point in curve.known if abs(point.low) < SPAN_LIMIT and abs(point.high) < SPAN_LIMIT]
    if not known:
        return f"<figure><figcaption>{text(name)}: no number</figcaption></figure>"
    axes = Axes.of(curve, known)
    return (
        f'<figure><svg role="img" aria-label="{text(name)}" width="{WIDTH}" height="{HEIGHT + 14}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT + 14}">{"".join(axes.marks(marks))}{"".join(axes.lines(curve, known))}'
        f'<line class="axis" x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"/>'
        f'<text x="2" y="10">{axes.high:.4g}</text><text x="2" y="{HEIGHT - 3}">{axes.low:.4g}</text>'
        f'<text x="0" y="{HEIGHT + 12}">step {axes.first:,}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 12}" text-anchor="end">{axes.last:,}</text></svg>'
        f"<figcaption>{text(name)}: {curve.summary()}</figcaption></figure>"
    )


class Axes:
    """Where steps and values are drawn."""

    def __init__(self, first: int, last: int, low: float, high: float) -> None:
        self.first, self.last, self.low, self.high = first, last, low, high

    @classmethod
    def of(cls, curve: Curve, known: Sequence[Point]) -> Axes:
        low, high = min(point.low for point in known), max(point.high for point in known)
        return cls(curve.points[0].first, curve.points[-1].last, low, high)

    def x(self, step: float) -> float:
        return round(WIDTH * (step - self.first) / max(1, self.last - self.first), 1)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(4 + (HEIGHT - 8) * (1 - share), 1)

    def lines(self, curve: Curve, known: Sequence[Point]) -> Iterator[str]:
        shown = {id(point) for point in known}
        for there, run in groupby(curve.points, lambda point: id(point) in shown):
            points = list(run)
            if not there:
                yield from self._missing(points)
            elif len(points) == 1:
                yield f'<circle class="dot" r="2" cx="{self._middle(points[0])}" cy="{self.y(points[0].mean)}"/>'
            else:
                yield from self._line(points)

    def _line(self, points: list[Point]) -> Iterator[str]:
        if any(point.high > point.low for point in points):
            top = [f"{self._middle(point)},{self.y(point.high)}" for point in points]
            bottom = [f"{self._middle(point)},{self.y(point.low)}" for point in reversed(points)]
            yield f'<polygon class="band" points="{" ".join([*top, *bottom])}"/>'
        line = " ".join(f"{self._middle(point)},{self.y(point.mean)}" for point in points)
        yield f'<polyline class="line" points="{line}"/>'

    def _missing(self, points: list[Point]) -> Iterator[str]:
        start, end = self.x(points[0].first), self.x(points[-1].last)
        yield (
            f'<line class="missing" stroke-width="3" x1="{start}" x2="{max(end, start + 1)}" y1="{HEIGHT - 1}" '
            f'y2="{HEIGHT - 1}"><title>no number from step {points[0].first:,} to {points[-1].last:,}</title></line>'
        )

    def marks(self, marks: Sequence[tuple[int, str]]) -> Iterator[str]:
        for step, told in marks:
            if self.first <= step <= self.last:
                at = self.x(step)
                yield f'<line class="mark" x1="{at}" x2="{at}" y1="0" y2="{HEIGHT}"><title>{text(told)}</title></line>'

    def _middle(self, point: Point) -> float:
        return self.x((point.first + point.last) / 2)
