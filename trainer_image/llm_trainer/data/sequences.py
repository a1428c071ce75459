"""Rows of tokens from the prepared shards. Which row is which is a pure function of (seed, global index).

The corpus is read as one stream in which an end token stands before and after each document. It is cut into rows of
`length` + 1 tokens that overlap by one; every epoch visits each row once in a new order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm_trainer.data.manifest import DataManifest, Shard, read_manifest
from llm_trainer.runtime.errors import DataError

Tokens = NDArray[np.int64]
MASK = (1 << 64) - 1
PADDING = -100  # a target that doesn't count, as torch's cross_entropy has it


@dataclass(frozen=True)
class TokenRow:
    """`tokens` (length + 1,): inputs are all but the last, targets all but the first."""

    tokens: Tokens
    positions: Tokens  # (length,): restarts at 0 at each end token, which so begins the next document's own block


@dataclass(frozen=True)
class EvaluationRow:
    """All (length,): `positions` restart at 0 where a part of a document begins; a target may be PADDING."""

    tokens: Tokens
    positions: Tokens
    targets: Tokens


class Sequences:
    """The training rows of one training."""

    def __init__(self, data_folder: Path, length: int, seed: int) -> None:
        """`first` may be set after: how many rows were read by an earlier stage, which go before index 0."""
        self.first = 0
        manifest = read_manifest(data_folder)
        if manifest is None:
            raise DataError(f"{data_folder} holds no prepared data: there is no manifest.json")
        self.manifest, self.folder, self.length, self.seed = manifest, data_folder, length, seed
        self._shards = [_map(data_folder, manifest, shard) for shard in manifest.shards if shard.split == "train"]
        self._ends = np.cumsum([len(tokens) for tokens in self._shards])
        total = int(self._ends[-1]) if self._shards else 0
        self.rows = total // length  # with the end token before the first document there are total + 1 tokens
        if self.rows < 1:
            raise DataError(
                f"the corpus has {total} training tokens, fewer than one sequence of {length}; "
                "add text or lower sequenceLength"
            )

    def row(self, index: int) -> TokenRow:
        """The row at a global index; indices go on through as many epochs as asked for."""
        epoch, place = divmod(self.first + index, self.rows)
        start = permute(place, self.rows, self.seed, epoch) * self.length
        return make_row(self._read(start - 1, self.length + 1), self.manifest.eos_token_id)

    def _read(self, start: int, count: int) -> Tokens:
        """Tokens of the stream; at -1 stands the end token before the first document."""
        parts: list[Tokens] = []
        if start < 0:
            parts.append(np.array([self.manifest.eos_token_id], dtype=np.int64))
            start, count = 0, count - 1
        shard = int(np.searchsorted(self._ends, start, side="right"))
        while count > 0:
            begin = start - (int(self._ends[shard - 1]) if shard else 0)
            part = self._shards[shard][begin : begin + count].astype(np.int64)
            parts.append(part)
            start, count, shard = start + len(part), count - len(part), shard + 1
        return np.concatenate(parts)


def make_row(tokens: Tokens, eos: int) -> TokenRow:
    inputs = tokens[:-1]
    places = np.arange(len(inputs))
    starts = np.where(inputs == eos, places, 0)
    return TokenRow(tokens, places - np.maximum.accumulate(starts))


def evaluation_parts(folder: Path, manifest: DataManifest, shard: Shard, length: int, share: float) -> Iterator[Tokens]:
    """Parts of a held-out shard's documents, each of these as [end, document…, end]; at most `length` + 1 tokens each.

    With all parts every target is in one. Of a smaller share they lie evenly over the shard, and the first is always
    among them.
    """
    tokens = _map(folder, manifest, shard)
    ends = np.fromfile((folder / shard.file).with_suffix(".idx"), dtype="<i8")
    begins = np.concatenate([[0], ends[:-1]])
    parts = -(-(ends - begins) // length)  # of each document
    until = np.cumsum(parts)
    total = int(until[-1])
    numbers = np.unique(np.arange(math.ceil(total * share)) / share // 1).astype(np.int64)
    for number in numbers[numbers < total]:
        document = int(np.searchsorted(until, number, side="right"))
        begin, end = int(begins[document]), int(ends[document])
        start = begin - 1 + int(number - until[document] + parts[document]) * length
        inside = tokens[max(start, begin) : min(start + length + 1, end)].astype(np.int64)
        yield np.concatenate([[manifest.eos_token_id], inside]) if start < begin else inside


def evaluation_rows(
    folder: Path, manifest: DataManifest, shard: Shard, length: int, share: float = 1.0
) -> Iterator[EvaluationRow]:
    """A share of a held-out shard, in rows as full as whole parts make them: in the order in which they come."""
    waiting: list[Tokens] = []
    free = length
    for part in evaluation_parts(folder, manifest, shard, length, share):
        if len(part) - 1 > free:
            yield _packed(waiting, length, manifest.eos_token_id)
            waiting, free = [], length
        waiting.append(part)
        free -= len(part) - 1
    if waiting:
        yield _packed(waiting, length, manifest.eos_token_id)


def _packed(parts: list[Tokens], length: int, eos: int) -> EvaluationRow:
    missing = length - sum(len(part) - 1 for part in parts)
    padding = np.full(missing, eos, dtype=np.int64)
    return EvaluationRow(
        tokens=np.concatenate([*(part[:-1] for part in parts), padding]),
        positions=np.concatenate([*(np.arange(len(part) - 1) for part in parts), np.arange(missing)]),
        targets=np.concatenate([*(part[1:] for part in parts), np.full(missing, PADDING)]),
    )


def permute(place: int, size: int, seed: int, epoch: int) -> int:
    """A permutation of range(size) without a table: a Feistel network, walked until it falls into the range."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    value = place
    while True:
        left, right = value >> half, value & mask
        for turn in range(4):
            left, right = right, left ^ (_mix(right, seed, epoch, turn) & mask)
        value = left << half | right
        if value < size:
            return value


def _mix(value: int, *keys: int) -> int:
    """splitmix64's finaliser over a value and its keys."""
    for key in keys:
        value = (value + (key + 1) * 0x9E3779B97F4A7C15) & MASK
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
        value ^= value >> 31
    return value


def _map(folder: Path, manifest: DataManifest, shard: Shard) -> NDArray[np.generic]:
    if not shard.tokens:
        return np.zeros(0, dtype=np.uint16)
    return np.memmap(folder / shard.file, dtype=np.dtype(manifest.dtype).newbyteorder("<"), mode="r")
