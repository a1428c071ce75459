"""Near duplicates by MinHash and LSH (Broder 1997; Leskovec et al., Mining of Massive Datasets, 3.4), verified exactly.

Two halves: for each document signatures and n-grams are written to disk (map), then documents that share a band are
compared by their n-grams, in order, with those that were kept (reduce). So a dropped document is always the near
duplicate of one that is there, and the answer doesn't depend on chance: bands only choose who is compared.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm_trainer.data.quality.buckets import Buckets
from llm_trainer.data.sorted_keys import SortedKeys, shared
from llm_trainer.data.words import Hashes, Words, mix

PERMUTATIONS = 128
CERTAINTY = 0.99  # that a pair at the threshold shares a band
SKETCH = 1 << 16  # n-grams kept of a document; of a longer one those with the smallest hashes (bottom-k sketch)
CHUNK = 4096  # n-grams at a time
OPEN_UNITS = 64  # whose files are open at the same time
BANDS = "bands"
FEATURES, ENDS = "features", "ends"  # of a unit: n-grams, and where each document's end

Features = NDArray[np.uint32]


def bands_and_rows(threshold: float, permutations: int = PERMUTATIONS) -> tuple[int, int]:
    """As many rows as leave a pair at the threshold this chance to share a band, 1 - (1 - s^rows)^bands: the more
    rows, the fewer other pairs are compared.
    """
    for rows in range(permutations, 1, -1):
        bands = permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= CERTAINTY:
            return bands, rows
    return permutations, 1


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Document `number` is nearly the kept document `of`; both count over all units."""

    number: int
    of: int
    similarity: float


class SignatureWriter:
    """Of one unit: each document's n-grams, and a hash of each band of its signature."""

    def __init__(self, folder: Path, threshold: float, ngram: int) -> None:
        self._ngram = ngram
        self._bands, self._rows = bands_and_rows(threshold)
        self._factors, self._offsets = _permutations(self._bands * self._rows)
        self._keys = SortedKeys(folder, BANDS, self._bands)
        self._features, self._ends = ((folder / name).open("wb") for name in (FEATURES, ENDS))
        self._end = self._documents = 0

    def add(self, number: int, words: Words) -> None:
        """`number` in the unit; greater ones follow. A document without n-grams is like none."""
        features = features_of(words, self._ngram)
        if not len(features):
            return
        sketch = _sketch(features)
        self._features.write(sketch.tobytes())
        self._ends.write(np.int64(self._end).tobytes() * (number - self._documents))  # of those without n-grams
        self._end, self._documents = self._end + len(sketch), number + 1
        self._ends.write(np.int64(self._end).tobytes())
        self._keys.add(number, self._signature(features).tolist())

    def _signature(self, features: Hashes) -> Hashes:
        """A hash of each band."""
        smallest = np.full(len(self._factors), np.iinfo(np.uint64).max, dtype=np.uint64)
        for start in range(0, len(features), CHUNK):
            part = features[start : start + CHUNK] * self._factors[:, None] + self._offsets[:, None]
            np.minimum(smallest, part.min(axis=1), out=smallest)
        bands = np.zeros(self._bands, dtype=np.uint64)
        for row in smallest.reshape(self._bands, self._rows).T:
            bands = mix(bands + row)
        return bands

    def close(self) -> None:
        self._keys.close()
        for stream in (self._features, self._ends):
            stream.close()


class _Features:
    """N-grams of all units' documents, on disk. Read, not mapped: what was mapped stays in memory."""

    def __init__(self, folders: Sequence[Path], offsets: Sequence[int]) -> None:
        self._folders, self._offsets = folders, offsets
        self._open: OrderedDict[int, tuple[int, int]] = OrderedDict()  # files of units, those used last at the end

    @property
    def documents(self) -> int:
        """At least as many as the number of the last one that has n-grams."""
        return self._offsets[-1] + (self._folders[-1] / ENDS).stat().st_size // 8 if self._folders else 0

    def of(self, number: int) -> Features:
        unit = bisect_right(self._offsets, number) - 1
        at = number - self._offsets[unit]
        features, ends = self._files(unit)
        if at:
            begin, end = struct.unpack("<2q", os.pread(ends, 16, (at - 1) * 8))
        else:
            begin, end = 0, *struct.unpack("<q", os.pread(ends, 8, 0))
        return np.frombuffer(os.pread(features, (end - begin) * 4, begin * 4), dtype="<u4")

    def _files(self, unit: int) -> tuple[int, int]:
        if unit not in self._open:
            if len(self._open) == OPEN_UNITS:
                _close(self._open.popitem(last=False)[1])
            self._open[unit] = tuple(os.open(self._folders[unit] / name, os.O_RDONLY) for name in (FEATURES, ENDS))  # type: ignore[assignment]
        self._open.move_to_end(unit)
        return self._open[unit]

    def close(self) -> None:
        while self._open:
            _close(self._open.popitem()[1])


def _close(files: tuple[int, int]) -> None:
    for file in files:
        os.close(file)


def near_duplicates(
    folders: Sequence[Path], offsets: Sequence[int], threshold: float, work: Path
) -> Iterator[Duplicate]:
    """In order, those that are to be dropped. `offsets`: the number of each unit's first document.

    `work`: an empty folder for what is between. Memory doesn't grow with the documents.
    """
    features, bands = _Features(folders, offsets), bands_and_rows(threshold)[0]
    with closing(features), Buckets(work, features.documents) as buckets:
        buckets.fill(shared(folders, offsets, BANDS, bands))
        for number, own in buckets.documents():
            members = [buckets.members(bucket) for bucket in own]
            found = _most_similar(features, number, {other for each in members for other in each}, threshold)
            if found:
                yield found
                continue
            for bucket, there in zip(own, members, strict=True):
                buckets.add(bucket, number, len(there))


def _most_similar(features: _Features, number: int, others: set[int], threshold: float) -> Duplicate | None:
    best: Duplicate | None = None
    mine = features.of(number)
    for other in sorted(others):
        theirs = features.of(other)
        if min(len(mine), len(theirs)) < threshold * max(len(mine), len(theirs)):
            continue  # their sizes alone tell
        similarity = jaccard(mine, theirs)
        if similarity >= threshold and (best is None or similarity > best.similarity):
            best = Duplicate(number, other, similarity)
    return best


def features_of(words: Words, ngram: int) -> Hashes:
    """The set of a document's n-grams; of one with fewer tokens itself."""
    tokens = min(ngram, len(words.hashes))
    return np.unique(words.ngrams(tokens)) if tokens else words.hashes


def _sketch(features: Hashes) -> Features:
    """Half of each hash is enough to compare two documents. As all are sorted, the smallest are the first."""
    return np.unique((features >> np.uint64(32)).astype(np.uint32))[:SKETCH]


def jaccard(one: Features, other: Features) -> float:
    """Of two sketches; exact if neither was cut, else with a standard error of 0.002 at most."""
    both = np.intersect1d(one, other, assume_unique=True)
    if max(len(one), len(other)) < SKETCH:
        return len(both) / max(1, len(one) + len(other) - len(both))
    union = np.union1d(one, other)[:SKETCH]
    return float(np.searchsorted(both, union[-1], side="right") / len(union))


def _permutations(number: int) -> tuple[Hashes, Hashes]:
    """Multipliers, odd, and addends of hashes that stand for permutations (multiply and add modulo 2^64). Always the
    same ones: what is dropped must not change from run to run.
    """
    drawn = mix(np.arange(1, 2 * number + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return drawn[:number] | np.uint64(1), drawn[number:]
