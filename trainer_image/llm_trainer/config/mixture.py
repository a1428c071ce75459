"""In what shares a pretrain stage reads the sources of the corpus, as a user writes it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydantic import Field

from llm_trainer.config.base import Name, Settings


class Selector(Settings):
    """Sources by what all of the given fields say; without any all of them."""

    source: Name | None = Field(default=None, description="The source of this name.")
    domain: str | None = Field(default=None, max_length=63, description="Those with this domain.")
    language: str | None = Field(default=None, max_length=35, description="Those with this language.")

    def selects(self, source: str, domain: str, language: str) -> bool:
        return self.source in (None, source) and self.domain in (None, domain) and self.language in (None, language)

    def __str__(self) -> str:
        given = self.model_dump(include={"source", "domain", "language"}, exclude_none=True)
        return " ".join(f"{name} {value!r}" for name, value in given.items()) or "all sources"


class MixtureWeight(Selector):
    """Sources and the share that they have together, each of them by its size."""

    weight: float = Field(default=1.0, ge=0, le=1_000_000, description="Their share, over the sum of the weights.")


class EpochLimit(Selector):
    """How often sources may be read."""

    epochs: float = Field(gt=0, le=100_000, description="Passes over each of them at most.")


class Shares(Settings):
    """At most one of weights and temperature; without either each source has the share of its size."""

    weights: list[MixtureWeight] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="A source goes by the first that selects it; one that none selects is not read.",
    )
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of each domain × language ∝ its tokens to this power, α of Conneau et al. 2020: 1 by size, "
        "0 all alike.",
    )


class MixturePhase(Shares):
    """Other shares from a point of the stage on. Exactly one of fromShare and fromTokens."""

    from_share: float | None = Field(default=None, gt=0, lt=1, description="Of the stage's tokens.")
    from_tokens: int | None = Field(default=None, ge=1, le=1_000_000_000_000_000, description="Of the stage.")

    def begin(self, rows: int, length: int) -> int:
        """The first row of it: that which begins at its token, or the next."""
        if self.from_tokens is not None:
            return -(-self.from_tokens // length)
        return math.ceil(round((self.from_share or 0) * rows, 6))  # 0.1 × 30 is a little more than 3


class Mixture(Shares):
    """Each source by itself, in rows and epochs of its own; what it holds at the beginning, and changes of it."""

    max_epochs: list[EpochLimit] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="A source goes by the first that selects it. What one may not give the others do.",
    )
    schedule: list[MixturePhase] | None = Field(
        default=None, min_length=1, max_length=8, description="Changes of the shares, in their order."
    )

    def phases(self) -> list[tuple[str, Shares]]:
        """All of them, by the field at which a user wrote each."""
        return [("", self), *((f".schedule[{n}]", phase) for n, phase in enumerate(self.schedule or []))]

    def limit_of(self, source: str, domain: str, language: str) -> float | None:
        """Its epochs at most; None: any number."""
        found = (limit.epochs for limit in self.max_epochs or [] if limit.selects(source, domain, language))
        return next(found, None)

    def begins(self, rows: int, length: int) -> list[int]:
        """The first row of each phase, of a stage of so many rows."""
        return [0, *(phase.begin(rows, length) for phase in self.schedule or [])]

    def schedule_problems(self, rows: int, length: int) -> Iterator[str]:
        """Phases in which no row would be read, each by its field and what to do."""
        begins = [*self.begins(rows, length), rows]
        for n in range(1, len(begins) - 1):
            if not begins[n - 1] < begins[n] < rows:
                yield (
                    f".schedule[{n - 1}]: begins at row {begins[n]:,} of the stage's {rows:,} (of {length} tokens) "
                    f"and must begin after row {begins[n - 1]:,}, where the phase before does, and before the end"
                )


def selector_lists(mixture: Mixture) -> Iterator[tuple[str, list[MixtureWeight] | list[EpochLimit]]]:
    """Every list that selects sources, by its field."""
    for path, shares in mixture.phases():
        if shares.weights is not None:
            yield f"{path}.weights", shares.weights
    if mixture.max_epochs is not None:
        yield ".maxEpochs", mixture.max_epochs
