"""Writes tokens: flat arrays that a reader maps into memory, and beside each the ends of its documents."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from llm_trainer.config import TOKENS_PER_SHARD, Source
from llm_trainer.data.manifest import Shard, Split, TokenType


def token_type(vocabulary_size: int) -> TokenType:
    return "uint16" if vocabulary_size <= 1 << 16 else "uint32"


@dataclass(slots=True)
class _OpenShard:
    name: str
    file: BinaryIO
    sha256: Any = field(default_factory=hashlib.sha256)
    ends: array[int] = field(default_factory=lambda: array("q"))  # in tokens
    bytes: int = 0

    @property
    def tokens(self) -> int:
        return self.ends[-1] if self.ends else 0


class ShardWriter:
    """The shards of one split of one unit: `SPLIT/SOURCE-UNIT.bin` and `.idx` below `folder`, such as `a-00003`.

    A new file, `a-00003.1`, is begun at the first document after `tokens_per_shard` tokens; a document is never cut.
    """

    def __init__(
        self,
        folder: Path,
        split: Split,
        source: Source,
        dtype: TokenType,
        tokens_per_shard: int = TOKENS_PER_SHARD,
        unit: int = 0,
    ) -> None:
        self._folder, self._split, self._source = folder, split, source
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._tokens_per_shard = tokens_per_shard
        self._unit = unit
        self._open: _OpenShard | None = None
        self._finished: list[Shard] = []

    def add(self, tokens: Sequence[int] | NDArray[np.int64], text_bytes: int) -> None:
        """A document's tokens with its end token, and the UTF-8 bytes of its text."""
        shard = self._open = self._open or self._begin()
        data = np.asarray(tokens, dtype=self._dtype).tobytes()
        shard.file.write(data)
        shard.sha256.update(data)
        shard.ends.append(shard.tokens + len(tokens))
        shard.bytes += text_bytes
        if shard.tokens >= self._tokens_per_shard:
            self._finish(shard)

    def close(self) -> list[Shard]:
        """What was written; no file at all if there was no document."""
        if self._open:
            self._finish(self._open)
        return self._finished

    def _begin(self) -> _OpenShard:
        again = f".{len(self._finished)}" if self._finished else ""
        name = f"{self._split}/{self._source.name}-{self._unit:05}{again}.bin"
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return _OpenShard(name, path.open("wb"))

    def _finish(self, shard: _OpenShard) -> None:
        self._open = None
        shard.file.close()
        ends = np.asarray(shard.ends, dtype="<i8")
        (self._folder / shard.name).with_suffix(".idx").write_bytes(ends.tobytes())
        self._finished.append(
            Shard(
                file=shard.name,
                split=self._split,
                source=self._source.name,
                language=self._source.language,
                domain=self._source.domain,
                license=self._source.license,
                tokens=shard.tokens,
                documents=len(shard.ends),
                bytes=shard.bytes,
                sha256=shard.sha256.hexdigest(),
            )
        )
