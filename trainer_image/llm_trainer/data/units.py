"""The corpus in units of work, which follow from its files and settings alone, and never from who does the work.

A unit is so many files of one source, or a range of a large one: bytes of lines, row groups of Parquet. Its key tells
what its documents are made from, so that what was made of a unit before is known, whatever else has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llm_trainer.config import Data, Source
from llm_trainer.data.files import LINES, SUFFIXES, TOKENS, Files, Streams, find_files, format_of, streamed_files, told
from llm_trainer.data.readers import Part, open_for_arrow

# Bytes of files of a unit: a large corpus has some hundreds, so that many processes end at the same time.
SMALLEST, LARGEST, UNITS = 16 << 20, 512 << 20, 512

Sources = list[tuple[Source, Files]]


@dataclass(frozen=True, slots=True)
class Unit:
    """`number` counts those of the source, `bytes` are those of the files."""

    number: int
    source: Source
    files: Files
    parts: tuple[Part, ...]
    bytes: int
    key: str


def find_sources(data: Data, volumes_root: str, streams: Streams) -> Sources:
    """Every source with its files. Raises DataError naming the source's field when one has none."""
    found: Sources = []
    for number, source in enumerate(data.sources):
        field = f"spec.data.sources[{number}].uri (source {source.name!r})"
        if source.stream:
            text = tuple(suffix for suffix in SUFFIXES if suffix != TOKENS)
            files = streamed_files(source.uri, field, volumes_root, streams[source.uri], text)
        else:
            files = find_files(source.uri, field, volumes_root, SUFFIXES)
        found.append((source, files))
    return found


def unit_bytes(total: int) -> int:
    """Of a corpus of so many bytes. A power of two, so that a corpus that grows a little keeps its units."""
    size = SMALLEST
    while size < LARGEST and size * UNITS < total:
        size *= 2
    return size


def units_of(data: Data, sources: Sources) -> list[Unit]:
    """In the order of the documents. Raises DataError for a table that can't be opened."""
    size = unit_bytes(sum(files.bytes for _, files in sources))
    settings = data.model_dump(mode="json", include={"seed", "validation_fraction"})
    return [unit for source, files in sources for unit in _units_of_source(source, files, size, settings)]


def _units_of_source(source: Source, files: Files, size: int, settings: dict[str, Any]) -> Iterator[Unit]:
    for number, (parts, of) in enumerate(grouped(files, size)):
        said = [settings, source.model_dump(mode="json"), [_said(files, part) for part in parts], code_digest()]
        yield Unit(number, source, files, parts, of, key_of(said))


def grouped(files: Files, size: int) -> Iterator[tuple[tuple[Part, ...], int]]:
    """So many small files, or ranges of large ones, of about `size` bytes together; and how many these are."""
    parts: list[Part] = []
    total = 0
    for part, of in _parts(files, size):
        if parts and total + of > size:
            yield tuple(parts), total
            parts, total = [], 0
        parts.append(part)
        total += of
    if parts:
        yield tuple(parts), total


def _parts(files: Files, size: int) -> Iterator[tuple[Part, int]]:
    for path in files.paths:
        with told(files.field, files.name(path)):
            length = files.size(path)
            if length <= size:
                yield Part(path), length
            elif path.suffix in LINES:
                for begin in range(0, length, size):
                    end = min(begin + size, length)
                    yield Part(path, begin, None if end == length else end, None if begin else 0), end - begin
            elif format_of(path) == ".parquet" and path.suffix == ".parquet":
                try:
                    yield from _row_groups(files, path, size)
                except (pa.ArrowInvalid, OSError):  # who reads it tells
                    yield Part(path), length
            else:
                yield Part(path), length


def _row_groups(files: Files, path: Path, size: int) -> Iterator[tuple[Part, int]]:
    with open_for_arrow(files, path) as source, pq.ParquetFile(source) as parquet:
        metadata = parquet.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    begin = before = length = rows = 0
    for number, group in enumerate(groups, start=1):
        length, rows = length + group.total_byte_size, rows + group.num_rows
        if length >= size or number == len(groups):
            yield Part(path, begin, number, before), length
            begin, before, length = number, rows, 0


def _said(files: Files, part: Part) -> list[object]:
    return [*file_identity(files, part.path), part.begin, part.end]


def file_identity(files: Files, path: Path) -> tuple[str, int, int | str]:
    """By which a file is known to be the same: its name, size and time, or the mark that its server gives it."""
    with told(files.field, files.name(path)):
        return files.name(path), files.size(path), files.mark(path)


def resolved(units: Iterable[Unit], rows: Mapping[str, list[int]]) -> list[Unit]:
    """With what is before each part of a file. `rows`: by a unit's key, of each of its parts."""
    found: list[Unit] = []
    path, before = Path(), 0
    for unit in units:
        parts = []
        for part, has in zip(unit.parts, rows[unit.key], strict=True):
            before = before if part.path == path and part.begin else 0
            path = part.path
            parts.append(replace(part, before=before) if part.before is None else part)
            before += has
        found.append(replace(unit, parts=tuple(parts)))
    return found


def key_of(said: object) -> str:
    """Names what was made from this."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


@cache
def code_digest() -> str:
    """Of all that decides what becomes of a document beside the settings."""
    digest = hashlib.sha256()
    for package in ("numpy", "py3langid", "pyarrow", "tokenizers", "transformers"):
        digest.update(f"{package} {version(package)}\n".encode())
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
