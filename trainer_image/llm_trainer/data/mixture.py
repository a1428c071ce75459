"""Which source each row of a stage comes from: a closed form of its index, whatever the number of processes. Pure.

Shares become whole numbers of rows of each source, so that they are exact at the end of a phase and limits hold; these
are spread evenly over the phase, so that no source is ever more than about a row from its share.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from llm_trainer.config import Mixture
from llm_trainer.config.allotment import Part, TooFewTokensError, allotted, beyond
from llm_trainer.runtime.errors import ConfigurationError, DataError


class Place(NamedTuple):
    part: int
    ordinal: int  # of its rows, over all its epochs


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
        try:
            given = allotted(mixture, parts, rows, length, starts, field)
        except TooFewTokensError as error:
            raise DataError(str(error)) from None
        begins = [*mixture.begins(rows, length), rows]
        counts = [*given.counts, beyond(given.asked[-1], given.limits, given.counts[-1])]
        asked = [*given.asked, given.asked[-1]]
        self.phases: list[Phase] = []
        place = list(starts)
        for begin, wanted, count in zip(begins, asked, counts, strict=True):
            self.phases.append(Phase(begin, wanted, Interleaving(count), place))
            place = [start + taken for start, taken in zip(place, count, strict=True)]
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
