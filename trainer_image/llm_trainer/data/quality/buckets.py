"""Which documents have a band of their signatures in common, in their order; on disk, however many they are.

A bucket is a band's value that several documents have. It is known by the place of its first member in a file of
members, to which those documents are added that stay.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from llm_trainer.data.sorted_keys import Keys, Numbers

COMPARED = 64  # kept documents of one bucket that a document is compared with
PARTS, PART_DOCUMENTS = 256, 1 << 14  # files of entries at most, and documents of each at least
MEMBER = 8  # bytes

# Of a document in a bucket: its number, the bucket, and how many members that may have.
ENTRY = np.dtype([("number", "<i8"), ("bucket", "<i8"), ("size", "u1")])

Bucket = tuple[int, int]  # its first place, its size


class Buckets:
    """Files in a folder, which must be empty. Memory: the entries of one part, some MB."""

    def __init__(self, folder: Path, documents: int) -> None:
        self._folder = folder
        self._part = max(PART_DOCUMENTS, -(-documents // PARTS))
        self._parts = -(-documents // self._part)
        self._end = 0
        self._members = os.open(folder / "members", os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def __enter__(self) -> Buckets:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._members)

    def fill(self, shared: Iterable[tuple[Keys, Numbers]]) -> None:
        """`shared`: documents by a key that they have in common, all of a key together."""
        with ExitStack() as stack:
            streams = [stack.enter_context(self._path(part).open("wb", buffering=0)) for part in range(self._parts)]
            for keys, numbers in shared:
                entries = self._entries(keys, numbers)
                entries = entries[np.argsort(entries["number"], kind="stable")]
                parts, begins = np.unique(entries["number"] // self._part, return_index=True)
                for part, begin, end in zip(parts, begins, [*begins[1:], len(entries)], strict=True):
                    streams[part].write(entries[begin:end].tobytes())
        os.ftruncate(self._members, self._end * MEMBER)  # with holes: most places stay empty

    def _entries(self, keys: Keys, numbers: Numbers) -> np.ndarray:
        begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        counts = np.diff([*begins, len(keys)])
        sizes = np.minimum(counts, COMPARED)
        places = self._end + np.cumsum(sizes) - sizes
        self._end += int(sizes.sum())
        entries = np.empty(len(keys), dtype=ENTRY)
        entries["number"] = numbers
        entries["bucket"], entries["size"] = np.repeat(places, counts), np.repeat(sizes, counts)
        return entries

    def _path(self, part: int) -> Path:
        return self._folder / f"part-{part:03}"

    def documents(self) -> Iterator[tuple[int, list[Bucket]]]:
        """In their order, those that share a bucket with another, and their buckets."""
        for part in range(self._parts):
            entries = np.fromfile(self._path(part), dtype=ENTRY)
            entries = entries[np.argsort(entries["number"], kind="stable")]
            numbers = entries["number"]
            begins = np.flatnonzero(np.diff(numbers, prepend=-1))
            for begin, end in zip(begins, np.append(begins, len(numbers))[1:], strict=False):
                own = entries[begin:end]
                yield int(numbers[begin]), list(zip(own["bucket"].tolist(), own["size"].tolist(), strict=True))

    def members(self, bucket: Bucket) -> list[int]:
        """In their order, those that were added."""
        place, size = bucket
        held = memoryview(os.pread(self._members, size * MEMBER, place * MEMBER)).cast("q").tolist()
        return [member - 1 for member in held if member]

    def add(self, bucket: Bucket, number: int, after: int) -> None:
        """To those that are there, `after` in number; a bucket that is full takes no more."""
        place, size = bucket
        if after < size:
            os.pwrite(self._members, np.int64(number + 1).tobytes(), (place + after) * MEMBER)
