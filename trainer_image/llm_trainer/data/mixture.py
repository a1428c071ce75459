"""Which source each row of a stage comes from: a closed form of its index, whatever the number of processes. Pure.

Shares become whole numbers of rows of each source, so that they are exact at the end of a phase and limits hold; these
are spread evenly over the phase, so that no source is ever more than about a row from its share. All arithmetic is
exact (integers, fractions, decimals): machines whose `pow` differs in the last bit read the same.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import NamedTuple

from llm_trainer.config import Mixture, Shares
from llm_trainer.runtime.errors import ConfigurationError, DataError

DECIMALS = Context(prec=28)
SHOWN = 8  # sources in a message


@dataclass(frozen=True)
class Part:
    """A source of the corpus and how many rows of the stage's length it has."""

    source: str
    domain: str
    language: str
    tokens: int
    rows: int

    @property
    def labels(self) -> tuple[str, str, str]:
        return self.source, self.domain, self.language


class Place(NamedTuple):
    part: int
    ordinal: int  # of its rows, over all its epochs


def shares_of(shares: Shares, parts: Sequence[Part]) -> list[Fraction]:
    """Of each part what was asked for, 1 in all; 0 in all where nothing that was asked for has a row."""
    if shares.weights is not None:
        groups = [next((n for n, w in enumerate(shares.weights) if w.selects(*p.labels)), -1) for p in parts]
        weights = {n: Fraction(weight.weight) for n, weight in enumerate(shares.weights)}
    else:
        alpha = Decimal(1 if shares.temperature is None else str(shares.temperature))
        kinds = list(dict.fromkeys((part.domain, part.language) for part in parts))
        groups = [kinds.index((part.domain, part.language)) for part in parts]
        sizes = _rows_by_group(groups, parts)
        weights = {n: Fraction(DECIMALS.power(Decimal(size), alpha)) for n, size in sizes.items() if size}
    sizes = _rows_by_group(groups, parts)
    total = sum(weight for n, weight in weights.items() if sizes.get(n)) or Fraction(1)
    return [
        weights.get(n, Fraction(0)) / total * Fraction(part.rows, sizes[n]) if part.rows else Fraction(0)
        for n, part in zip(groups, parts, strict=True)
    ]


def _rows_by_group(groups: Sequence[int], parts: Sequence[Part]) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for group, part in zip(groups, parts, strict=True):
        sizes[group] = sizes.get(group, 0) + part.rows
    return sizes


def allot(shares: Sequence[Fraction], limits: Sequence[int | None], rows: int) -> list[int] | None:
    """Whole rows of each part, `rows` in all, as near to the shares as the limits let them be (as UniMax, Chung et al.
    2023: what one may not give the others do, in their proportion). None where the limits leave too few.
    """
    counts, free = [0] * len(shares), {n for n, share in enumerate(shares) if share > 0}
    while free:
        total = sum(shares[n] for n in free)
        full = {n for n in free if (limit := limits[n]) is not None and shares[n] * rows > limit * total}
        if not full:
            exact = {n: shares[n] * rows / total for n in sorted(free)}
            for n, wanted in exact.items():
                counts[n] = int(wanted)
            missing = rows - sum(counts[n] for n in free)
            for n in sorted(exact, key=lambda n: (int(exact[n]) - exact[n], n))[:missing]:
                counts[n] += 1
            return counts
        for n in full:
            counts[n] = limits[n] or 0
            rows -= counts[n]
        free -= full
    return counts if rows == 0 else None


class Interleaving:
    """So many rows of each part, in an order in which each is spread evenly.

    A Huffman tree over the parts: at every node two are merged as Bresenham draws a line, the lesser ones deepest. A
    part's rows among the first k are so within 1 + depth / 2 of its share, mostly within 1, and found in O(depth).
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts, self.rows = list(counts), sum(counts)
        heap: list[tuple[int, int, _Node]] = [(count, n, _Node(count, n)) for n, count in enumerate(counts) if count]
        heapq.heapify(heap)
        number = len(counts)
        while len(heap) > 1:
            (_, _, less), (_, _, more) = heapq.heappop(heap), heapq.heappop(heap)
            heapq.heappush(heap, (less.rows + more.rows, number, _Node(less.rows + more.rows, -1, (less, more))))
            number += 1
        self.root = heap[0][2]

    def place(self, index: int) -> Place:
        """Beyond the last row the pattern begins again."""
        laps, index = divmod(index, self.rows)
        node = self.root
        while node.children:
            less, more = node.children
            before = node.of_less(index)
            if node.of_less(index + 1) > before:
                node, index = less, before
            else:
                node, index = more, index - before
        return Place(node.part, laps * self.counts[node.part] + index)

    def before(self, index: int) -> list[int]:
        """Rows of each part among the first `index`."""
        laps, index = divmod(index, self.rows)
        found = [laps * count for count in self.counts]
        waiting = [(self.root, index)]
        while waiting:
            node, rows = waiting.pop()
            if node.children:
                less = node.of_less(rows)
                waiting += zip(node.children, (less, rows - less), strict=True)
            else:
                found[node.part] += rows
        return found


@dataclass(frozen=True)
class _Node:
    rows: int
    part: int  # of a leaf
    children: tuple[_Node, _Node] | None = None  # the less and the more frequent one

    def of_less(self, index: int) -> int:
        """How many of the first `index` rows are the less frequent ones'."""
        assert self.children  # noqa: S101 -- of an inner node
        return (2 * index * self.children[0].rows + self.rows) // (2 * self.rows)


@dataclass(frozen=True)
class Phase:
    begin: int  # row of the stage
    asked: list[Fraction]
    order: Interleaving
    starts: list[int]  # ordinal of each part's next row


class Order:
    """The place of each row of a stage.

    A limit counts what stages before have read in the same rows (`starts`). Where it binds, the last phase is served
    first: it is the one for which the best is kept. Rows beyond the stage's, which it reads when it jumps over bad
    data, have the last phase's shares of what the limits leave; where they leave nothing, its pattern goes on.
    """

    def __init__(
        self, mixture: Mixture, parts: Sequence[Part], rows: int, length: int, starts: Sequence[int], field: str
    ) -> None:
        """Raises ConfigurationError for a schedule without rows, DataError where the sources have too few tokens."""
        if problems := list(mixture.schedule_problems(rows, length)):
            raise ConfigurationError(f"{field}{problems[0]}")
        self.parts, self.rows, self.length = list(parts), rows, length
        asked = [shares_of(shares, parts) for _, shares in mixture.phases()]
        limits = rows_left(mixture, parts, starts)
        begins = [*mixture.begins(rows, length), rows]
        counts = [list[int]()] * len(asked)
        for n in reversed(range(len(asked))):
            path, shares = mixture.phases()[n]
            if not any(asked[n]):
                raise DataError(no_rows(shares, parts, length, f"{field}{path}"))
            given = allot(asked[n], limits, begins[n + 1] - begins[n])
            if given is None:
                room = Room(mixture, parts, asked[n], limits, length)
                raise DataError(room.too_small(begins[n + 1] - begins[n], f"{field}{path}", field))
            limits, counts[n] = without(limits, given), given
        counts.append(beyond(asked[-1], limits, counts[-1]))
        asked.append(asked[-1])
        self.phases: list[Phase] = []
        place = list(starts)
        for begin, wanted, given in zip(begins, asked, counts, strict=True):
            self.phases.append(Phase(begin, wanted, Interleaving(given), place))
            place = [start + taken for start, taken in zip(place, given, strict=True)]
        self._begins = [phase.begin for phase in self.phases]
        self._asked = [[float(phase.asked[n]) for phase in self.phases] for n in range(len(parts))]

    def phase(self, index: int) -> Phase:
        return self.phases[bisect_right(self._begins, index) - 1]

    def place(self, index: int) -> Place:
        phase = self.phase(index)
        part, ordinal = phase.order.place(index - phase.begin)
        return Place(part, phase.starts[part] + ordinal)

    def read(self, index: int) -> list[int]:
        """Rows of each part that are read when the stage has come to this index, with those of stages before."""
        phase = self.phase(index)
        inside = phase.order.before(index - phase.begin)
        return [start + rows for start, rows in zip(phase.starts, inside, strict=True)]

    def asked(self, rows: int) -> list[float]:
        """The share of each part that was asked for, over the first rows of the stage."""
        ends = [*self._begins[1:], max(rows, self.rows)]
        inside = [max(0, min(end, rows) - phase.begin) for phase, end in zip(self.phases, ends, strict=True)]
        inside[0] = max(inside[0], 1)  # of none: those at the beginning
        total = sum(inside)
        return [
            sum(share * times for share, times in zip(shares, inside, strict=True)) / total for shares in self._asked
        ]


def rows_left(mixture: Mixture, parts: Sequence[Part], starts: Sequence[int]) -> list[int | None]:
    """Of each part, by its limit; None: any number."""
    limits = [mixture.limit_of(*part.labels) for part in parts]
    return [
        None if limit is None else max(0, int(Fraction(str(limit)) * part.rows) - start)
        for limit, part, start in zip(limits, parts, starts, strict=True)
    ]


def without(limits: Sequence[int | None], taken: Sequence[int]) -> list[int | None]:
    return [None if limit is None else limit - count for limit, count in zip(limits, taken, strict=True)]


def beyond(asked: Sequence[Fraction], limits: Sequence[int | None], last: list[int]) -> list[int]:
    """The pattern of the rows after the stage's last."""
    left = sum(sum(last) if n is None else n for n, share in zip(limits, asked, strict=True) if share)
    return allot(asked, limits, min(left, sum(last))) or last if left else last


def no_rows(shares: Shares, parts: Sequence[Part], length: int, field: str) -> str:
    small = ", ".join(f"{part.source} {part.tokens:,}" for part in parts if not part.rows) or "none"
    asked = f"{field}.weights selects" if shares.weights is not None else f"{field}: all are"
    return (
        f"{asked} no source with at least one sequence of {length} tokens (those that are smaller: {small}); "
        "select others, or lower sequenceLength"
    )


@dataclass(frozen=True)
class Room:
    """What limits leave to a phase."""

    mixture: Mixture
    parts: Sequence[Part]
    asked: Sequence[Fraction]
    limits: Sequence[int | None]
    length: int

    def too_small(self, rows: int, place: str, field: str) -> str:
        """That they leave fewer tokens than it needs, and how many each source has."""
        read = [(p, (n or 0) * self.length) for p, n, share in zip(self.parts, self.limits, self.asked, strict=True)
                if share]  # fmt: skip
        shown = [
            f"{part.source} {left:,} ({part.rows * self.length:,} × {self.mixture.limit_of(*part.labels):g} epochs, "
            "without what is read before or in a later phase)"
            for part, left in read[:SHOWN]
        ]
        more = f" and {len(read) - SHOWN} more sources" if len(read) > SHOWN else ""
        return (
            f"{place}: asks for {rows * self.length:,} tokens, and {field}.maxEpochs leaves "
            f"{sum(left for _, left in read):,}: {', '.join(shown)}{more}; raise maxEpochs, add text, or lower the "
            "stage's tokens"
        )
