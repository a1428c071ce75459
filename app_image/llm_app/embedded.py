"""Gives an index its vectors. Only what is new is embedded: by the index before, and by what a killed pod had done."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from llm_app.config import Embedding, IndexConfig
from llm_app.embedding import PROBE, Embedder, digest_of, without
from llm_app.store import Index
from llm_app.vectors import DIGEST_BYTES, STORED, Array, Vectors, same_model

DONE = ".vectors-"  # files of what unfinished pods have embedded


def embedded(index: Index, config: IndexConfig, used: Vectors | None, folder: Path | None) -> tuple[Index, int]:
    """The index with vectors, and how many texts were asked for. ``used``: of the same space, as far as is told.

    ``folder``: where what is done is kept until all is. Raises EmbeddingError.
    """
    assert config.embedding  # noqa: S101 -- the caller has looked
    return asyncio.run(_embedded(index, config.knowledge, config.embedding, used, folder))


async def _embedded(
    index: Index, knowledge: str, settings: Embedding, used: Vectors | None, folder: Path | None
) -> tuple[Index, int]:
    texts = [chunk.searched for chunk in index.chunks]
    done = Done(folder, settings.space) if folder else None
    async with Embedder(settings, knowledge) as embedder:
        probe = (await embedder.documents([PROBE]))[0]
        known: dict[bytes, Array] = dict(done.read(len(probe))) if done else {}
        if used and same_model(used.probe, probe):  # what is told of a model may be the same, and the model another
            known |= used.by_digest()
        new = list(without(texts, known))
        keep = done.add if done else None
        rows = await embedder.documents(new, keep=keep) if new else ()
    known |= {digest_of(text): row for text, row in zip(new, rows, strict=True)}
    digests = tuple(digest_of(text) for text in texts)
    matrix = np.stack([known[digest] for digest in digests])
    return replace(index, vectors=Vectors(matrix, digests, probe), space=settings.space), len(new)


def still_same(used: Vectors, config: IndexConfig) -> bool:
    """Whether the served model is that of these vectors. Raises EmbeddingError."""
    assert config.embedding  # noqa: S101 -- the caller has looked

    async def ask(settings: Embedding) -> Array:
        async with Embedder(settings, config.knowledge) as embedder:
            rows: Array = (await embedder.documents([PROBE]))[0]
            return rows

    return same_model(used.probe, asyncio.run(ask(config.embedding)))


class Done:
    """Texts that were embedded, in a file of each pod; half a record at its end is that of a pod that was killed."""

    def __init__(self, folder: Path, space: str) -> None:
        self._folder = folder
        self._prefix = DONE + hashlib.sha256(space.encode()).hexdigest()[:12]
        self._file = folder / f"{self._prefix}-{uuid.uuid4().hex}"

    def read(self, dimensions: int) -> Iterator[tuple[bytes, Array]]:
        size = DIGEST_BYTES + dimensions * STORED.itemsize
        for file in sorted(self._folder.glob(f"{self._prefix}-*")):
            whole = file.read_bytes()
            for at in range(0, len(whole) - size + 1, size):
                row = np.frombuffer(whole, dtype=STORED, count=dimensions, offset=at + DIGEST_BYTES)
                if abs(float(row @ row) - 1) < 1e-3:  # torn by the end of a node
                    yield whole[at : at + DIGEST_BYTES], row

    def add(self, texts: Sequence[str], rows: Array) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._file.open("ab") as file:
            for text, row in zip(texts, rows, strict=True):
                file.write(digest_of(text) + row.astype(STORED).tobytes())


def forget(folder: Path) -> None:
    """When a revision is there."""
    for file in folder.glob(f"{DONE}*"):
        file.unlink(missing_ok=True)


def known_of(index: Index | None, embedding: Embedding) -> Vectors | None:
    """The vectors of an index, if they are of the same model."""
    return index.vectors if index and index.space == embedding.space else None
