"""Finds chunks by the meaning that an embedding model gives them: exact, by the cosine.

With numpy alone: a product of one matrix is as fast as an index of a library at the sizes that a server holds
(docs/figures.md), and the file is mapped, so that all replicas of a node share its pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from llm_app.keyword import Hit

VECTORS, DIGESTS, PROBE = "vectors.f32", "digests.bin", "probe.f32"
DIGEST_BYTES = 16
SAME_MODEL = 0.99  # cosine of one text by the same model: numbers differ a little by batch and precision
Array = NDArray[np.float32]
STORED = np.dtype("<f4")  # as files have it, whatever the machine


class DimensionError(ValueError):
    """Vectors of two lengths, so of two models."""


@dataclass(frozen=True)
class Vectors:
    """``matrix``: a row of length 1 for each chunk. ``probe``: the vector of a text that all indexes embed."""

    matrix: Array
    digests: tuple[bytes, ...]
    probe: Array

    @property
    def dimensions(self) -> int:
        return int(self.matrix.shape[1])

    def search(self, question: Array, most: int, minimum: float = -1.0, allowed: bytes | None = None) -> list[Hit]:
        """Numbers of chunks with their cosines, best first. ``allowed``: of each 1 if it may. Raises DimensionError."""
        check_dimensions(question, self.dimensions)
        numbers = None if allowed is None else np.flatnonzero(np.frombuffer(allowed, dtype=np.uint8))
        scores = (self.matrix if numbers is None else self.matrix[numbers]) @ question
        most = min(most, len(scores))
        if most == 0:
            return []
        best = np.argpartition(-scores, most - 1)[:most]
        best = best[np.lexsort((best, -scores[best]))]
        found = best if numbers is None else numbers[best]
        return [
            (int(number), float(score)) for number, score in zip(found, scores[best], strict=True) if score >= minimum
        ]

    def by_digest(self) -> dict[bytes, Array]:
        return dict(zip(self.digests, self.matrix, strict=True))

    def save(self, folder: Path) -> None:
        (folder / VECTORS).write_bytes(np.ascontiguousarray(self.matrix, dtype=STORED).data)
        (folder / DIGESTS).write_bytes(b"".join(self.digests))
        (folder / PROBE).write_bytes(np.ascontiguousarray(self.probe, dtype=STORED).tobytes())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises ValueError, or OSError."""
        probe = np.fromfile(folder / PROBE, dtype=STORED)
        told = (folder / DIGESTS).read_bytes()
        digests = tuple(told[at : at + DIGEST_BYTES] for at in range(0, len(told), DIGEST_BYTES))
        matrix = np.memmap(folder / VECTORS, dtype=STORED, mode="r", shape=(len(digests), len(probe)))
        return cls(matrix, digests, probe)


def unit(vectors: Any) -> Array:
    """Rows of length 1, of what a model has given. Raises ValueError where it has given no direction."""
    given = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(given, axis=-1, keepdims=True)
    if not np.all(np.isfinite(lengths) & (lengths > 0)):
        raise ValueError("the embedding model gave a vector without a direction (zero, infinite or not a number)")
    return np.asarray(given / lengths, dtype=np.float32)


def check_dimensions(given: Array, dimensions: int) -> None:
    """Raises DimensionError."""
    if given.shape[-1] != dimensions:
        raise DimensionError(f"the embedding model gives {given.shape[-1]} dimensions, and the index has {dimensions}")


def same_model(one: Array, other: Array) -> bool:
    """Whether two vectors of the same text are of one model."""
    return one.shape == other.shape and float(one @ other) >= SAME_MODEL
