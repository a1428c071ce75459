"""What a pretrain stage has read of each source, against what it was to read. Counted on rank 0."""

from __future__ import annotations

from collections.abc import Mapping

from llm_trainer.data.manifest import DataManifest
from llm_trainer.data.sequences import Rows
from llm_trainer.protocol import ReadTokens


class ReadCounts:
    """Tokens of each source, since the stage began; kept with its checkpoints, as a stage may jump over rows."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._labels = labels_of(rows.manifest)
        self._tokens = [0] * len(self._labels)

    def add(self, begin: int, end: int) -> None:
        """The rows of these indices were read."""
        self._tokens = [n + m for n, m in zip(self._tokens, self._rows.tokens_read(begin, end), strict=True)]

    @property
    def by_source(self) -> dict[str, int]:
        return {name: tokens for (name, _, _), tokens in zip(self._labels, self._tokens, strict=True)}

    def restore(self, by_source: Mapping[str, int] | None, rows: int) -> None:
        """As a checkpoint has it, after so many rows; None of one that was made before they were counted."""
        if by_source is None:
            self._tokens = [0] * len(self._labels)
            self.add(0, rows)
        else:
            self._tokens = [int(by_source.get(name, 0)) for name, _, _ in self._labels]

    def sources(self, rows: int) -> list[ReadTokens]:
        """Most first, after so many rows."""
        total = max(1, sum(self._tokens))
        asked, epochs = self._rows.asked(rows), self._rows.epochs(self._tokens)
        found = [
            ReadTokens(
                source=name, domain=domain, language=language, tokens=tokens, share=tokens / total, asked=share,
                epochs=passes,
            )
            for (name, domain, language), tokens, share, passes in zip(
                self._labels, self._tokens, asked, epochs, strict=True
            )
        ]  # fmt: skip
        return sorted(found, key=lambda each: -each.tokens)


def labels_of(manifest: DataManifest) -> list[tuple[str, str, str]]:
    """Source, domain and language of each source."""
    labels = {shard.source: (shard.source, shard.domain, shard.language) for shard in manifest.shards}
    return [labels[name] for name in manifest.names]


def by_domain(sources: list[ReadTokens]) -> list[ReadTokens]:
    """Sums over domain and language, most first."""
    found: dict[tuple[str, str], ReadTokens] = {}
    for each in sources:
        key = (each.domain, each.language)
        before = found.get(key, ReadTokens(domain=key[0], language=key[1], tokens=0, share=0, asked=0))
        sums = {name: getattr(before, name) + getattr(each, name) for name in ("tokens", "share", "asked")}
        found[key] = before.model_copy(update=sums)
    return sorted(found.values(), key=lambda each: -each.tokens)
