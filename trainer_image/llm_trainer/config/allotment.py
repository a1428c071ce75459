"""How many whole rows of each source a stage reads in each phase of its mixture. Pure.

The trainer orders the rows by it, and the operator tells by it, before pods are made, that sources have too few tokens.
All arithmetic is exact (integers, fractions, decimals): machines whose `pow` differs in the last bit read the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction

from llm_trainer.config.mixture import Mixture, Shares

DECIMALS = Context(prec=28)
SHOWN = 8  # sources in a message


class TooFewTokensError(ValueError):
    """The sources can't give what a mixture asks for; the message has the field, the numbers and what to do."""


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


@dataclass(frozen=True)
class Allotment:
    """Of each phase what each part was asked for, and the rows that it gives; and what its limit leaves after all."""

    asked: list[list[Fraction]]
    counts: list[list[int]]
    limits: list[int | None]


def allotted(
    mixture: Mixture, parts: Sequence[Part], rows: int, length: int, starts: Sequence[int], field: str
) -> Allotment:
    """Of a stage of so many rows, with a schedule that is right; `starts`: rows that stages before have read.

    A limit is kept for the last phase first. Raises TooFewTokensError.
    """
    asked = [shares_of(shares, parts) for _, shares in mixture.phases()]
    limits = rows_left(mixture, parts, starts)
    begins = [*mixture.begins(rows, length), rows]
    counts = [list[int]()] * len(asked)
    for n in reversed(range(len(asked))):
        path, shares = mixture.phases()[n]
        if not any(asked[n]):
            raise TooFewTokensError(no_rows(shares, parts, length, f"{field}{path}"))
        given = allot(asked[n], limits, begins[n + 1] - begins[n])
        if given is None:
            room = Room(mixture, parts, asked[n], limits, length)
            raise TooFewTokensError(room.too_small(begins[n + 1] - begins[n], f"{field}{path}", field))
        limits, counts[n] = without(limits, given), given
    return Allotment(asked, counts, limits)


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
