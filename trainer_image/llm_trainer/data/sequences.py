"""Rows of tokens from the prepared shards. Which row is which is a pure function of (seed, global index).

Text is read as a stream in which an end token stands before and after each document. It is cut into rows of
`length` + 1 tokens that overlap by one; every epoch visits each row once in a new order. Without a mixture the corpus
is one stream; with one each source is.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_trainer.config import Mixture
from llm_trainer.config.allotment import Part
from llm_trainer.data.manifest import DataManifest, Shard, read_manifest
from llm_trainer.data.mixture import Order
from llm_trainer.runtime.errors import DataError

Tokens = NDArray[np.int64]
MASK = (1 << 64) - 1
COUNTED_ROWS = 1 << 16  # whose sources are looked up at a time
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


class Stream:
    """The tokens of some shards, one after another, as rows; an end token stands before the first document."""

    def __init__(self, folder: Path, manifest: DataManifest, shards: list[Shard], length: int) -> None:
        self._eos, self._folder, self._of, self.length = manifest.eos_token_id, folder, shards, length
        self._shards = [_map(folder, manifest, shard) for shard in shards]
        self._ends = np.cumsum([len(tokens) for tokens in self._shards])
        self.tokens = int(self._ends[-1]) if self._shards else 0
        self.rows = self.tokens // length  # with the end token before the first document there is one token more

    def row(self, place: int) -> TokenRow:
        return make_row(self._read(place * self.length - 1, self.length + 1), self._eos)

    def documents(self, place: int) -> Iterator[tuple[str, range]]:
        """Of which documents a row has parts: a shard's file, and their numbers in it, from 0."""
        start = place * self.length
        for shard, end in zip(self._of, self._ends, strict=True):
            begin = int(end) - shard.tokens
            low, high = max(start, begin) - begin, min(start + self.length, int(end)) - begin
            if low < high:
                ends = np.fromfile((self._folder / shard.file).with_suffix(".idx"), dtype="<i8")
                first, last = np.searchsorted(ends, [low, high - 1], side="right")
                yield shard.file, range(int(first), int(last) + 1)

    def _read(self, start: int, count: int) -> Tokens:
        """Tokens of the stream; at -1 stands the end token before the first document."""
        parts: list[Tokens] = []
        if start < 0:
            parts.append(np.array([self._eos], dtype=np.int64))
            start, count = 0, count - 1
        shard = int(np.searchsorted(self._ends, start, side="right"))
        while count > 0:
            begin = start - (int(self._ends[shard - 1]) if shard else 0)
            part = self._shards[shard][begin : begin + count].astype(np.int64)
            parts.append(part)
            start, count, shard = start + len(part), count - len(part), shard + 1
        return np.concatenate(parts)


class Rows(ABC):
    """The training rows of one stage."""

    def __init__(self, data_folder: Path, length: int, seed: int) -> None:
        self.manifest, self.folder, self.length, self.seed = manifest_of(data_folder), data_folder, length, seed

    @abstractmethod
    def place(self, index: int) -> tuple[Stream, int]:
        """Where the row at a global index lies; indices go on through as many epochs as asked for."""

    def row(self, index: int) -> TokenRow:
        """The row at a global index."""
        stream, place = self.place(index)
        return stream.row(place)

    def documents(self, indices: Iterable[int]) -> dict[str, list[int]]:
        """Of which documents rows have parts: by the shard's file, counted from 0 in it."""
        found: dict[str, set[int]] = {}
        for stream, place in map(self.place, indices):
            for file, numbers in stream.documents(place):
                found.setdefault(file, set()).update(numbers)
        return {file: sorted(numbers) for file, numbers in found.items()}

    @abstractmethod
    def tokens_read(self, begin: int, end: int) -> list[int]:
        """Of each source of the manifest, in the rows of these indices."""

    @abstractmethod
    def asked(self, rows: int) -> list[float]:
        """The share of each source that was asked for, over the first rows."""

    @abstractmethod
    def epochs(self, tokens: Sequence[int]) -> list[float]:
        """Passes over each source once the stage has read so many tokens of it, with stages before."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What decides which row an index is, beside the data, the seed and the length; empty: nothing."""


class Sequences(Rows):
    """The whole corpus as one stream: rows may begin in one source and end in the next."""

    def __init__(self, data_folder: Path, length: int, seed: int) -> None:
        """`first` may be set after: how many rows were read by an earlier stage, which go before index 0."""
        super().__init__(data_folder, length, seed)
        self.first = 0
        self._stream = Stream(data_folder, self.manifest, train_shards(self.manifest), length)
        self.rows = self._stream.rows
        if self.rows < 1:
            raise DataError(
                f"the corpus has {self._stream.tokens} training tokens, fewer than one sequence of {length}; "
                "add text or lower sequenceLength"
            )
        names, shards = self.manifest.names, train_shards(self.manifest)
        runs = [(name, sum(shard.tokens for shard in run)) for name, run in groupby(shards, lambda each: each.source)]
        ends = np.cumsum([0, *(tokens for _, tokens in runs)])
        self._begins, self._lengths = ends[:-1, None], np.diff(ends)[:, None]  # of each run of shards of one source
        self._sources = [names.index(name) for name, _ in runs]
        self._sizes = [self.manifest.train_tokens(name) for name in names]

    def place(self, index: int) -> tuple[Stream, int]:
        epoch, place = divmod(self.first + index, self.rows)
        return self._stream, permute(place, self.rows, self.seed, epoch)

    def tokens_read(self, begin: int, end: int) -> list[int]:
        found, index = np.zeros(len(self._sizes), dtype=np.int64), self.first + begin
        while index < self.first + end:
            epoch, place = divmod(index, self.rows)
            count = min(self.first + end - index, self.rows - place, COUNTED_ROWS)
            rows = permute_all(np.arange(place, place + count), self.rows, self.seed, epoch)
            starts = rows[None, :] * self.length
            upto = [np.clip(at - self._begins, 0, self._lengths) for at in (starts, starts + self.length)]
            np.add.at(found, self._sources, (upto[1] - upto[0]).sum(axis=1))
            index += count
        return [int(tokens) for tokens in found]

    def asked(self, rows: int) -> list[float]:
        return [size / sum(self._sizes) for size in self._sizes]

    def epochs(self, tokens: Sequence[int]) -> list[float]:
        before = self.first / self.rows  # of each alike, on the average
        return [before + read / size if size else 0.0 for read, size in zip(tokens, self._sizes, strict=True)]

    def fingerprint(self) -> dict[str, Any]:
        return {"firstRow": self.first} if self.first else {}


class MixedSequences(Rows):
    """Each source as a stream of its own, with epochs of its own, in the shares of a mixture: no row has two."""

    def __init__(
        self,
        data_folder: Path,
        length: int,
        seed: int,
        mixture: Mixture,
        rows: int,
        starts: Mapping[str, int],
        field: str = "pretrain.mixture",
    ) -> None:
        """`starts`: rows that stages before have read, by source. Raises what `Order` does."""
        super().__init__(data_folder, length, seed)
        self.mixture, self.starts = mixture, dict(starts)
        self.parts = parts_of(self.manifest, length)
        places = [starts.get(part.source, 0) for part in self.parts]
        self.order = Order(mixture, self.parts, rows, length, places, field)
        shards = train_shards(self.manifest)
        self._streams = [
            Stream(data_folder, self.manifest, [shard for shard in shards if shard.source == part.source], length)
            for part in self.parts
        ]
        self._seeds = [_mix(zlib.crc32(part.source.encode()), seed) for part in self.parts]  # parallel texts apart

    def place(self, index: int) -> tuple[Stream, int]:
        part, ordinal = self.order.place(index)
        stream = self._streams[part]
        epoch, place = divmod(ordinal, stream.rows)
        return stream, permute(place, stream.rows, self._seeds[part], epoch)

    def tokens_read(self, begin: int, end: int) -> list[int]:
        before, after = self.order.read(begin), self.order.read(end)
        return [(now - then) * self.length for then, now in zip(before, after, strict=True)]

    def asked(self, rows: int) -> list[float]:
        return self.order.asked(rows)

    def epochs(self, tokens: Sequence[int]) -> list[float]:
        return [
            (self.starts.get(part.source, 0) + read / self.length) / part.rows if part.rows else 0.0
            for part, read in zip(self.parts, tokens, strict=True)
        ]

    def fingerprint(self) -> dict[str, Any]:
        mixture = self.mixture.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {"mixture": mixture, **({"firstRows": self.starts} if self.starts else {})}


def manifest_of(data_folder: Path) -> DataManifest:
    manifest = read_manifest(data_folder)
    if manifest is None:
        raise DataError(f"{data_folder} holds no prepared data: there is no manifest.json")
    return manifest


def train_shards(manifest: DataManifest) -> list[Shard]:
    return [shard for shard in manifest.shards if shard.split == "train"]


def parts_of(manifest: DataManifest, length: int) -> list[Part]:
    """The sources, in the order of the manifest, in rows of this length."""
    sizes = {name: manifest.train_tokens(name) for name in manifest.names}
    labels = {shard.source: (shard.domain, shard.language) for shard in manifest.shards}
    return [
        Part(name, *labels.get(name, ("", "")), tokens=tokens, rows=tokens // length) for name, tokens in sizes.items()
    ]


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


def permute_all(places: NDArray[np.int64], size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """`permute` of many places."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    values = places.astype(np.uint64)
    outside = np.ones(len(values), dtype=np.bool_)
    while outside.any():
        left, right = values[outside] >> shift, values[outside] & mask
        for turn in range(4):
            left, right = right, left ^ (_mix_all(right, seed, epoch, turn) & mask)
        values[outside] = left << shift | right
        outside = values >= np.uint64(size)
    return values.astype(np.int64)


def _mix_all(values: NDArray[np.uint64], *keys: int) -> NDArray[np.uint64]:
    """`_mix` of many values: arrays of unsigned numbers go round by themselves."""
    for key in keys:
        values = values + np.uint64((key + 1) * 0x9E3779B97F4A7C15 & MASK)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        values ^= values >> np.uint64(31)
    return values


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
