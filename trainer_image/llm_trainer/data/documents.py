"""The first pass: what documents there are. Of equal ones the first is kept, in whichever sources they lie."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel

from llm_trainer.config import Data
from llm_trainer.data.corpus import Damaged, Document, Invalid, UnitReader, is_chosen, place_of
from llm_trainer.data.files import Place
from llm_trainer.data.sorted_keys import SortedKeys, mapped, shared
from llm_trainer.data.units import Unit, resolved
from llm_trainer.runtime.errors import DataError

DOCUMENTS, DIGESTS, TEXTS, RECORD, KEPT = "documents", "digests", "texts.arrow", "record.json", "kept"
HELD = 1 << 20  # bytes written at a time

# Of each document: its digest as two numbers, bytes, and where it is.
DOCUMENT = np.dtype(
    [("high", "<u8"), ("low", "<u8"), ("size", "<i4"), ("held_out", "u1"), ("file", "<i4"), ("row", "<i8")]
)
_PACK = struct.Struct("<16siBiq").pack
_HIGH = struct.Struct("<Q").unpack_from

Choices = NDArray[np.uint8]
Progress = Callable[[int], None]  # bytes of text that were read


class UnitRecord(BaseModel):
    """What a unit has beside its documents. `rows`: of each of its parts."""

    documents: int
    invalid: int
    empty: int
    rows: list[int]
    first_invalid: Invalid | None = None
    damaged: list[Damaged] = []


def read_unit(unit: Unit, data: Data, folder: Path, share: float, read: Progress) -> None:
    """`share` of the documents to train on are written as texts, for the tokenizer."""
    reader, digests, texts = UnitReader(unit, data), SortedKeys(folder, DIGESTS), TextWriter(folder, share)
    count, held = 0, bytearray()
    with (folder / DOCUMENTS).open("wb") as stream:
        for document in reader.documents():
            held += _PACK(document.digest, document.size, document.split != "train", reader.file, reader.row)
            digests.add(count, _HIGH(document.digest))
            texts.offer(count, document, document.text)
            count += 1
            if len(held) >= HELD:
                stream.write(held)
                held.clear()
            read(document.size)
        stream.write(held)
    digests.close()
    texts.close()
    record = UnitRecord(
        documents=count,
        invalid=reader.invalid,
        empty=reader.empty,
        rows=reader.rows,
        first_invalid=reader.first_invalid,
        damaged=reader.damaged,
    )
    (folder / RECORD).write_text(record.model_dump_json())


@dataclass(frozen=True)
class Corpus:
    """All that the first pass has found. `units` are resolved, `folders` have their documents."""

    data: Data
    units: Sequence[Unit]
    folders: Sequence[Path]
    records: Sequence[UnitRecord]

    @classmethod
    def of(cls, data: Data, units: Sequence[Unit], folders: Sequence[Path]) -> Corpus:
        """Of units that aren't resolved yet. Raises DataError for a source that is not UTF-8."""
        records = [UnitRecord.model_validate_json((folder / RECORD).read_bytes()) for folder in folders]
        rows = {unit.key: record.rows for unit, record in zip(units, records, strict=True)}
        made = cls(data, resolved(units, rows), folders, records)
        refuse_damaged(made, data)
        refuse_invalid(made.units, made.records, data)
        return made

    @cached_property
    def counts(self) -> list[int]:
        """Documents of each unit."""
        return [record.documents for record in self.records]

    @cached_property
    def offsets(self) -> list[int]:
        """The number of each unit's first document among those of all."""
        return [0, *accumulate(self.counts)][:-1]

    def damaged(self, source: str) -> list[Damaged]:
        """Of a source each file once, in their order: of a large one several units may have found it."""
        found: dict[str, Damaged] = {}
        for unit, record in zip(self.units, self.records, strict=True):
            if unit.source.name == source:
                found = {**{each.file: each for each in record.damaged}, **found}
        return sorted(found.values())

    def place(self, number: int) -> Place:
        """Of a document by its number among those of all."""
        unit = bisect_right(self.offsets, number) - 1
        entry = mapped(self.folders[unit] / DOCUMENTS, DOCUMENT)[number - self.offsets[unit]]
        return place_of(self.units[unit], int(entry["file"]), int(entry["row"]))

    def kept(self, folder: Path, unit: int) -> Choices:
        """By what `write_kept` wrote into `folder`: 0 for each document of a unit that is equal to one before it."""
        return np.fromfile(folder / KEPT, dtype=np.uint8, count=self.counts[unit], offset=self.offsets[unit])

    def read_again(self, unit: int) -> Iterator[Document]:
        """The documents of a unit. Raises DataError if its files are not as they were at the first pass."""
        reader = UnitReader(self.units[unit], self.data)
        entries, last = mapped(self.folders[unit] / DOCUMENTS, "u1").data, -1
        size, count = DOCUMENT.itemsize, self.counts[unit]
        for last, document in enumerate(reader.documents()):
            if last == count or entries[last * size : last * size + 16] != document.digest:
                break
            yield document
        else:
            if last + 1 == count:
                return
        name = reader.unit.files.name(reader.unit.parts[reader.file].path)
        raise DataError(
            f"{reader.unit.files.field}: {name} was changed while the corpus was prepared; let nobody write there "
            "until it is done"
        )


def write_kept(corpus: Corpus, into: Path) -> None:
    """A byte for each document of all units: 0 of one that is equal to one before it, else 1."""
    folders, offsets, total = corpus.folders, corpus.offsets, sum(corpus.counts)
    with (into / KEPT).open("wb") as stream:
        for begin in range(0, total, HELD):
            stream.write(b"\1" * min(HELD, total - begin))
    if not total:
        return
    kept = np.memmap(into / KEPT, dtype=np.uint8, mode="r+")
    for high, numbers in shared(folders, offsets, DIGESTS):
        low = _low_halves(folders, offsets, numbers)
        order = np.lexsort((numbers, low, high))
        again = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
        kept[np.sort(numbers[order][1:][again])] = 0
    kept.flush()


def _low_halves(folders: Sequence[Path], offsets: Sequence[int], numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    found = np.zeros(len(numbers), dtype=np.uint64)
    which = np.searchsorted(np.array(offsets), numbers, side="right") - 1
    # of several units with the same first number all but the last are empty
    for unit in np.unique(which):
        mask = which == unit
        found[mask] = mapped(folders[unit] / DOCUMENTS, DOCUMENT)["low"][numbers[mask] - offsets[unit]]
    return found


def refuse_damaged(corpus: Corpus, data: Data) -> None:
    """Raises DataError for the first source of which more files than allowed are damaged."""
    for name, files in {unit.source.name: unit.files for unit in corpus.units}.items():
        damaged = corpus.damaged(name)
        if len(damaged) > data.max_damaged_fraction * len(files.paths):
            raise DataError(
                f"source {name!r}: {len(damaged)} of {len(files.paths)} files are damaged, more than "
                f"spec.data.maxDamagedFraction ({data.max_damaged_fraction:g}) allows; the first: {damaged[0].message}"
            )


def refuse_invalid(units: Sequence[Unit], records: Sequence[UnitRecord], data: Data) -> None:
    """Raises DataError for the first source of which more than the allowed share is not UTF-8. Units are resolved."""
    for source in dict.fromkeys(unit.source.name for unit in units):
        own = [(unit, record) for unit, record in zip(units, records, strict=True) if unit.source.name == source]
        invalid = sum(record.invalid for _, record in own)
        seen = invalid + sum(record.documents + record.empty for _, record in own)
        if not invalid or invalid <= data.max_invalid_fraction * seen:
            continue
        place, looks_like = next(
            (place_of(unit, first.file, first.row), first.looks_like)
            for unit, record in own
            if (first := record.first_invalid)
        )
        looks = f", which looks like {looks_like}" if looks_like else ""
        convert = f"iconv -f {looks_like or 'ENCODING'} -t UTF-8"
        raise DataError(
            f"source {source!r}: {invalid} of {seen} documents are not UTF-8, more than "
            f"spec.data.maxInvalidFraction ({data.max_invalid_fraction:g}) allows; the first is {place}{looks}. "
            f"Convert the files to UTF-8 ({convert}) or raise the limit."
        )


class TextWriter:
    """Texts for the tokenizer to be trained on: never the held-out ones, and of a large corpus a share by hash."""

    SCHEMA = pa.schema([("number", pa.int64()), ("text", pa.large_string())])

    def __init__(self, folder: Path, share: float) -> None:
        self._share, self._stream = share, None
        if share:
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            self._stream = pa.ipc.new_stream(folder / TEXTS, self.SCHEMA, options=options)
        self._numbers: list[int] = []
        self._texts: list[str] = []
        self._held = 0

    def offer(self, number: int, document: Document, text: str) -> None:
        """`text`: what the document becomes."""
        if (
            self._stream is None
            or document.split != "train"
            or not is_chosen(document.digest, "tokenizer", self._share)
        ):
            return
        self._numbers.append(number)
        self._texts.append(text)
        self._held += len(text)
        if self._held >= HELD:
            self._flush()

    def _flush(self) -> None:
        if self._stream and self._numbers:
            self._stream.write_batch(pa.record_batch([self._numbers, self._texts], schema=self.SCHEMA))
        self._numbers, self._texts, self._held = [], [], 0

    def close(self) -> None:
        self._flush()
        if self._stream:
            self._stream.close()


def read_texts(folder: Path) -> Iterator[tuple[int, str]]:
    """Numbers in the unit, and texts."""
    with pa.OSFile(str(folder / TEXTS)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            yield from zip(batch["number"].to_pylist(), batch["text"].to_pylist(), strict=True)
