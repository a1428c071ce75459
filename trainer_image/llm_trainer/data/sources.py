"""Reads the corpus: which files a source names, and the documents in them, in an order that never changes."""

from __future__ import annotations

import glob
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from llm_trainer.config import local_path
from llm_trainer.runtime.errors import DataError
from llm_trainer.runtime.volumes import refuse_links_out

SUFFIXES = (".txt", ".jsonl", ".parquet")
COMPRESSIONS = (".gz", ".zst", ".bz2", ".lz4")
PARQUET_ROWS = 512  # rows decoded at a time
# What one file may cost, whoever wrote it: a document is in memory several times over, and 1 kB can unpack to 1 MB.
DOCUMENT_BYTES = 128 << 20  # of a .txt file, a line, a cell
UNPACKED_TIMES, UNPACKED_BYTES = 200, 64 << 20  # more than both together is no text; text packs to a 3rd to a 20th


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was found, for messages: `pvc://corpus/ja.jsonl, line 12`."""

    file: str
    row: int | None = None
    unit: str = "line"

    def __str__(self) -> str:
        return self.file if self.row is None else f"{self.file}, {self.unit} {self.row}"


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A document as it lies in the file; text is None where its bytes are not UTF-8."""

    text: str | None
    place: Place


@dataclass(frozen=True, slots=True)
class Files:
    """The files that a user's URI names, sorted by path, and how to speak of them."""

    field: str
    uri: str
    paths: tuple[Path, ...]
    volumes_root: str

    def name(self, path: Path) -> str:
        """The file as the user knows it: a pvc:// URI."""
        return "pvc://" + path.relative_to(self.volumes_root).as_posix()

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.paths)


def find_files(uri: str, field: str, volumes_root: str, suffixes: tuple[str, ...] = SUFFIXES) -> Files:
    """The files of a `pvc://CLAIM/PATH` URI whose path may be a glob (`**` goes through folders).

    Raises DataError naming `field` when nothing matches or a file is of a kind that can't be read.
    """
    try:
        pattern = local_path(uri, volumes_root)
    except ValueError as error:
        raise DataError(f"{field}: {error}") from error
    matches = [Path(pattern)] if Path(pattern).exists() else [Path(p) for p in glob.glob(pattern, recursive=True)]  # noqa: PTH207 -- Path.glob can't take an absolute pattern
    if matches == [Path(pattern)] and matches[0].is_dir():
        raise DataError(f"{field}: {uri} is a folder. Name the files in it, for example {uri.rstrip('/')}/*.jsonl")
    files = Files(field, uri, tuple(sorted(path for path in matches if path.is_file())), volumes_root)
    if not files.paths:
        raise DataError(f"{field}: no file matches {uri}. Check the claim, the path and the glob.")
    for path in files.paths:
        refuse_links_out(path, volumes_root, field)
        if _format(path) not in suffixes:
            raise DataError(
                f"{field}: {files.name(path)} ends with none of {', '.join(suffixes)} "
                f"(compressed: {', '.join(COMPRESSIONS)} after it). Narrow the glob or convert the file."
            )
    return files


def read_documents(files: Files, text_field: str) -> Iterator[RawDocument]:
    """All documents: a `.txt` file is one, a JSONL line is one, a Parquet row is one."""
    for path in files.paths:
        yield from read_file(files, path, text_field)


def read_file(files: Files, path: Path, text_field: str) -> Iterator[RawDocument]:
    match _format(path):
        case ".txt":
            place = Place(files.name(path))
            with open_bytes(path) as stream:
                text = stream.read(DOCUMENT_BYTES + 1)
                _refuse_excess(files, place, path, text, len(text))
            yield RawDocument(_decode(text), place)
        case ".jsonl":
            for place, line in read_lines(files, path):
                yield _document_of_line(files, line, place, text_field)
        case _:
            yield from _documents_of_parquet(files, path, text_field)


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, decompressed if its suffix says so."""
    return cast(BinaryIO, io.BufferedReader(pa.input_stream(str(path), compression="detect")))


def read_lines(files: Files, path: Path) -> Iterator[tuple[Place, bytes]]:
    """Lines that are not blank, with their numbers from 1."""
    name = files.name(path)
    with open_bytes(path) as stream:
        number = unpacked = 0
        while line := stream.readline(DOCUMENT_BYTES + 1):
            number, unpacked = number + 1, unpacked + len(line)
            place = Place(name, number)
            _refuse_excess(files, place, path, line, unpacked)
            if line.strip():
                yield place, line


def _refuse_excess(files: Files, place: Place, path: Path, text: bytes, unpacked: int) -> None:
    """Raises DataError for a document that is too long, and for a file of which too much is unpacked so far."""
    if len(text) > DOCUMENT_BYTES:
        raise DataError(
            f"{files.field}: {place} is longer than {DOCUMENT_BYTES >> 20} MiB, the most of one document; split it"
        )
    if path.suffix in COMPRESSIONS and unpacked > UNPACKED_BYTES:
        packed = path.stat().st_size
        if unpacked > UNPACKED_TIMES * packed:
            raise DataError(
                f"{files.field}: {place}: the file has {packed:,} bytes and unpacks to more than {unpacked:,}, over "
                f"{UNPACKED_TIMES} times as many, as no text does; unpack it yourself if it is meant so"
            )


def parse_object(line: str, place: Place, field: str) -> dict[str, Any]:
    """A JSONL line's object. Raises DataError with file and line."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{field}: {place} is not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # a number of 4,301 digits; brackets in brackets
        raise DataError(f"{field}: {place} is JSON that can't be read: {error}; correct or remove it") from error
    if not isinstance(row, dict):
        raise DataError(f"{field}: {place} must hold a JSON object, not {type(row).__name__}")
    return row


def open_parquet(files: Files, path: Path) -> pq.ParquetFile:
    try:
        parquet = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{files.field}: {files.name(path)} is not a readable Parquet file: {error}") from error
    packed, groups = path.stat().st_size, range(parquet.metadata.num_row_groups)
    unpacked = max((parquet.metadata.row_group(group).total_byte_size for group in groups), default=0)
    if unpacked > UNPACKED_BYTES and unpacked > UNPACKED_TIMES * packed:
        raise DataError(
            f"{files.field}: {files.name(path)} has {packed:,} bytes and a row group of {unpacked:,}, over "
            f"{UNPACKED_TIMES} times as many, as no text has; write it anew with smaller row groups"
        )
    return parquet


def _format(path: Path) -> str:
    return path.with_suffix("").suffix if path.suffix in COMPRESSIONS else path.suffix


def _decode(data: bytes) -> str | None:
    try:
        return data.decode("utf-8-sig")  # a byte order mark is no text
    except UnicodeDecodeError:
        return None


def _encodable(text: str) -> str | None:
    """None for text with half a surrogate pair, which JSON can write as an escape and UTF-8 can't write."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text


def _document_of_line(files: Files, line: bytes, place: Place, text_field: str) -> RawDocument:
    text = _decode(line)
    if text is None:
        return RawDocument(None, place)
    row = parse_object(text, place, files.field)
    value = row.get(text_field)
    if not isinstance(value, str):
        found = f"a {type(value).__name__}" if text_field in row else f"only {', '.join(map(repr, row)) or 'nothing'}"
        raise DataError(f"{files.field}: {place} needs a string {text_field!r} (textField) and has {found}")
    return RawDocument(_encodable(value), place)


def _documents_of_parquet(files: Files, path: Path, text_field: str) -> Iterator[RawDocument]:
    parquet = open_parquet(files, path)
    columns = parquet.schema_arrow.names
    if text_field not in columns:
        raise DataError(
            f"{files.field}: {files.name(path)} has no column {text_field!r} (textField), only {', '.join(columns)}"
        )
    number = 0
    for batch in parquet.iter_batches(batch_size=PARQUET_ROWS, columns=[text_field]):
        for value in _as_bytes(batch.column(0), files, path, text_field):
            number += 1
            place = Place(files.name(path), number, "row")
            if value is None:
                raise DataError(f"{files.field}: {place} needs a string {text_field!r} (textField) and has null")
            if len(value) > DOCUMENT_BYTES:
                raise DataError(
                    f"{files.field}: {place} is longer than {DOCUMENT_BYTES >> 20} MiB, the most of one document; "
                    "split it"
                )
            yield RawDocument(_decode(value), place)


def _as_bytes(column: pa.Array, files: Files, path: Path, text_field: str) -> Iterator[bytes | None]:
    """Cells as bytes: Arrow does not check that its strings are UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise DataError(
            f"{files.field}: column {text_field!r} (textField) of {files.name(path)} must hold strings, "
            f"not {column.type}"
        )
    return (value.as_py() for value in column.cast(pa.large_binary()))
