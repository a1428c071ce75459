"""What data preparation says of the mixtures of later stages, once it knows how many tokens each source has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm_trainer.config import MixtureCheck
from llm_trainer.config.allotment import Part
from llm_trainer.data.manifest import DataManifest
from llm_trainer.data.mixture import Order
from llm_trainer.data.sequences import parts_of
from llm_trainer.protocol import Notice

MANY_EPOCHS = 4  # beyond which repetition is worth less and less: Muennighoff et al. 2023
LESS = 0.01  # of the stage's rows: a share that a limit makes so much smaller is told
SHOWN = 8


class Planned:
    """What a stage reads, by source."""

    def __init__(self, check: MixtureCheck, parts: list[Part], starts: Sequence[int]) -> None:
        """Raises ConfigurationError and DataError as `Order` does."""
        self.check, self.parts, self.starts = check, parts, starts
        order = Order(check.mixture, parts, check.rows, check.length, starts, check.field)
        self.read, self.asked = order.read(check.rows), order.asked(check.rows)
        self.shares = [(rows - before) / check.rows for rows, before in zip(self.read, starts, strict=True)]
        self.epochs = [
            (rows - before) / part.rows if part.rows else 0.0
            for rows, before, part in zip(self.read, starts, parts, strict=True)
        ]

    def __str__(self) -> str:
        """Such as `base reads 75.0 % of web-en (1.20 epochs), 25.0 % of web-ja (3.41 epochs)`."""
        shown = [
            f"{share:.1%} of {part.source} ({epochs:.2f} epochs)".replace("%", " %")
            for part, share, epochs in zip(self.parts, self.shares, self.epochs, strict=True)
            if share
        ]
        more = f" and {len(shown) - SHOWN} more sources" if len(shown) > SHOWN else ""
        return f"{self.check.stage} reads {', '.join(shown[:SHOWN])}{more}"

    def notices(self) -> Iterator[Notice]:
        """What is no failure and yet may surprise; each of the first sources alone."""
        for part, share, asked in zip(self.parts, self.shares, self.asked, strict=True):
            if asked - share > LESS:
                yield self._notice(
                    "ShareLimited",
                    f"source {part.source!r} gives {share:.1%} of the rows and not {asked:.1%}, as maxEpochs leaves "
                    "no more; the others give the rest",
                )
        for part, epochs in zip(self.parts, self.epochs, strict=True):
            if epochs > MANY_EPOCHS:
                yield self._notice(
                    "ManyEpochs",
                    f"source {part.source!r} is read {epochs:.1f} times; beyond {MANY_EPOCHS} epochs more of them are "
                    "worth little (Muennighoff et al. 2023): lower its share, or set maxEpochs",
                )
        for part in self.parts:
            if not part.rows:
                yield self._notice(
                    "SourceTooSmall",
                    f"source {part.source!r} has {part.tokens:,} tokens, fewer than one sequence of "
                    f"{self.check.length}, and is not read",
                )

    def _notice(self, reason: str, message: str) -> Notice:
        return Notice(reason=reason, message=f"{self.check.field}: {message}")


def planned(checks: Sequence[MixtureCheck], manifest: DataManifest) -> list[Planned]:
    """Of each stage, in their order; one that goes on with another's rows begins where that ends."""
    found: dict[str, Planned] = {}
    for check in checks:
        parts, before = parts_of(manifest, check.length), found.get(check.after)
        found[check.stage] = Planned(check, parts, before.read if before else [0] * len(parts))
    return list(found.values())
