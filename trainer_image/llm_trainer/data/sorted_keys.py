"""Which documents have the same hash, over all units, in memory that doesn't grow with their number.

Each unit's hashes are written in sorted runs. A reader takes a range of hashes at a time from all of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RUN = 1 << 16  # entries that are sorted at a time
AT_A_TIME = 1 << 18  # entries of a range, about: 15 MB
RANGES = 64  # at most, as each is sought in every unit's file: from 17 million documents on 1 byte for each

Keys = NDArray[np.uint64]
Numbers = NDArray[np.int64]


class SortedKeys:
    """Writes `NAME.keys` and `NAME.numbers`: run by run, each with its entries once for each column, sorted by it."""

    def __init__(self, folder: Path, name: str, columns: int = 1) -> None:
        self._keys, self._numbers = ((folder / f"{name}.{kind}").open("wb") for kind in ("keys", "numbers"))
        self._columns = columns
        self._held: tuple[array[int], array[int]] = (array("Q"), array("q"))

    def add(self, number: int, keys: Sequence[int]) -> None:
        """`keys`: one for each column."""
        self._held[0].extend(keys)
        self._held[1].append(number)
        if len(self._held[1]) == RUN:
            self._flush()

    def _flush(self) -> None:
        numbers = np.array(self._held[1], dtype="<i8")
        for keys in np.array(self._held[0], dtype="<u8").reshape(len(numbers), self._columns).T:
            order = np.argsort(keys, kind="stable")
            self._keys.write(keys[order].tobytes())
            self._numbers.write(numbers[order].tobytes())
        self._held = (array("Q"), array("q"))

    def close(self) -> None:
        self._flush()
        for stream in (self._keys, self._numbers):
            stream.close()


def shared(
    folders: Sequence[Path], offsets: Sequence[int], name: str, columns: int = 1
) -> Iterator[tuple[Keys, Numbers]]:
    """Entries whose key another entry has too in the same column, by key, then number. `offsets` are added to each
    folder's numbers. All entries of a key are yielded together.
    """
    total = sum((folder / f"{name}.numbers").stat().st_size for folder in folders) // 8 // columns
    ranges = min(RANGES, max(1, -(-total // AT_A_TIME)))
    for column in range(columns):
        for number in range(ranges):
            low, high = number * 2**64 // ranges, (number + 1) * 2**64 // ranges - 1
            parts = [
                part
                for folder, offset in zip(folders, offsets, strict=True)
                for part in _entries(folder, name, offset, column, columns, low, high)
            ]
            keys = np.concatenate([np.zeros(0, dtype=np.uint64), *(keys for keys, _ in parts)])
            numbers = np.concatenate([np.zeros(0, dtype=np.int64), *(numbers for _, numbers in parts)])
            order = np.lexsort((numbers, keys))
            keys, numbers = keys[order], numbers[order]
            same = keys[1:] == keys[:-1]
            several = np.zeros(len(keys), dtype=np.bool_)
            several[1:] |= same
            several[:-1] |= same
            if several.any():
                yield keys[several], numbers[several]


def _entries(
    folder: Path, name: str, offset: int, column: int, columns: int, low: int, high: int
) -> Iterator[tuple[Keys, Numbers]]:
    """Of each run, those from `low` to `high`. The files are mapped for so long alone: a process has no thousands of
    files open, and of what it has mapped all that it has read stays in its memory.
    """
    keys, numbers = mapped(folder / f"{name}.keys", "<u8"), mapped(folder / f"{name}.numbers", "<i8")
    for first in range(0, len(keys), RUN * columns):
        length = min(RUN * columns, len(keys) - first) // columns
        start = first + column * length
        run = keys[start : start + length]
        begin, end = run.searchsorted(np.uint64(low)), run.searchsorted(np.uint64(high), "right")
        yield np.array(run[begin:end]), np.array(numbers[start + begin : start + end]) + offset


def mapped(path: Path, dtype: object) -> NDArray[Any]:
    """A file as an array that is read as it is used."""
    if not path.stat().st_size:
        return np.zeros(0, dtype=dtype)  # type: ignore[call-overload, no-any-return]
    return np.memmap(path, dtype=dtype, mode="r")  # type: ignore[call-overload, no-any-return]
