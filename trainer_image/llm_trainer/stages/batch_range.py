"""Which micro-batches are tried, which are known to fit, and which is chosen. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

FASTER = 1.05  # times the speed of the chosen size: a smaller one that is worth to be told of


class SizeTrial(BaseModel):
    """Of one micro-batch; `peak` in bytes, of the process that took most."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    size: int = Field(ge=1)
    tokens_per_second: float
    peak: float


class SizeJournal(BaseModel):
    """The trials of all attempts. A size that was begun and isn't done has ended its attempt: it doesn't fit."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    rows: int = Field(default=0, ge=0, description="Of a process and a step: with others the sizes are others.")
    done: list[SizeTrial] = Field(default_factory=list)
    begun: list[int] = Field(default_factory=list)

    @property
    def lost(self) -> list[int]:
        return sorted({*self.begun} - {trial.size for trial in self.done})

    def begin(self, size: int) -> SizeJournal:
        return self.model_copy(update={"begun": [*self.begun, size]})

    def end(self, trial: SizeTrial) -> SizeJournal:
        return self.model_copy(update={"done": [*self.done, trial]})

    def forget(self, size: int) -> SizeJournal:
        """It ended for a reason that has nothing to do with its size."""
        return self.model_copy(update={"begun": [each for each in self.begun if each != size]})


def ladder(written: int, rows: int, maximum: int | None) -> list[int]:
    """Sizes that share the `rows` of a process and a step evenly: from `written` down by halves and up by doubles."""
    sizes = [written]
    while (below := fitting(sizes[0] // 2, rows)) >= 1:
        sizes.insert(0, below)
    while (above := sizes[-1] * 2) <= min(maximum or rows, rows) and rows % above == 0:
        sizes.append(above)
    return sizes


def fitting(size: int, rows: int) -> int:
    """The greatest one up to it that shares the rows evenly; 0 if there is none."""
    return next((each for each in range(min(size, rows), 0, -1) if rows % each == 0), 0)


def next_size(sizes: Sequence[int], written: int, journal: SizeJournal) -> int | None:
    """To be tried; None where all is known. ``sizes``: as `ladder` gives them."""
    end = sizes.index(journal.lost[0]) if journal.lost and journal.lost[0] in sizes else len(sizes)
    place = sizes.index(journal.done[-1].size) + 1 if journal.done else min(sizes.index(written), end - 1)
    return sizes[place] if 0 <= place < end else None


def expected_peak(points: Sequence[tuple[int, float]], size: int) -> float:
    """Bytes that a process will take with micro-batches of `size`; they grow as a line does.

    ``points``: size and peak of each trial, in order, the first of size 0: what was taken before any. So the first
    slope has what doesn't grow in it, such as gradients, and is too steep rather than too flat.
    """
    (less, low), (more, high) = points[-2:]
    return high + max(0.0, high - low) / (more - less) * (size - more)


def chosen(sizes: Sequence[int], journal: SizeJournal, refused: str) -> tuple[int, str]:
    """The largest that was tried with success, and what is told of it. ``refused``: why no larger one was tried."""
    if not journal.done:
        return sizes[0], f"the micro-batch is {sizes[0]}, though no trial of {shown(journal.lost)} came to its end"
    best = journal.done[-1]
    curve = ", ".join(f"{one.size} {one.tokens_per_second:,.0f} {one.peak / 2**30:.2f} GiB" for one in journal.done)
    told = f"the micro-batch is {best.size}, the largest that fits"
    if journal.lost:
        told += f"; an attempt ended while {shown(journal.lost)} was tried"
    elif refused:
        told += f"; {refused}"
    fastest = max(journal.done, key=lambda one: one.tokens_per_second)
    if fastest.tokens_per_second > FASTER * best.tokens_per_second:
        told += f"; {fastest.size} is faster: set tune.microBatchSize.maximum: {fastest.size} to have it"
    return best.size, f"{told} (tokens/s and peak memory of a process by size: {curve})"


def shown(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))
