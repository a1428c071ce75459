"""Reads users' files: text, lines and tables. Whatever goes wrong is a DataError with the file and the line or row."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import json
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq

from llm_trainer.data import line_ranges
from llm_trainer.data.files import COMPRESSIONS, LINES, Files, Place, format_of, told
from llm_trainer.data.true_format import HEAD_BYTES, belied, whole_file
from llm_trainer.runtime.errors import DamagedFileError, DataError

T = TypeVar("T")
Row = dict[str, Any]

CODECS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4"}  # Arrow's names
TABLE_ROWS = 512  # decoded at a time
BLOCK = 1 << 20  # bytes of a file read at a time
# What one file may cost, whoever wrote it: a document is in memory several times over, and 1 kB can unpack to 1 MB.
DOCUMENT_BYTES = 128 << 20  # of a .txt file, a line, a cell
UNPACKED_TIMES, UNPACKED_BYTES = 200, 64 << 20  # more than both together is no text; text packs to a 3rd to a 20th

MARK = b"\xef\xbb\xbf"  # a byte order mark is no text
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Part:
    """A file, or a range of one: of bytes, a line being of the range in which it begins, or of Parquet's row groups."""

    path: Path
    begin: int = 0
    end: int | None = None  # None: to the end
    before: int | None = 0  # rows of the file before it; None: only who has read them knows


@dataclass(slots=True)
class Reading:
    """A file or a part of one that is being read, and where its reader is. `row` counts from 1 in the part."""

    files: Files
    path: Path
    row: int | None = None
    unit: str = "line"
    begin: int = 0
    end: int | None = None
    before: int | None = 0
    name: str = ""  # asked for once, as there is a place for each document

    def __post_init__(self) -> None:
        self.name = self.name or self.files.name(self.path)

    @classmethod
    def of(cls, files: Files, part: Part) -> Reading:
        return cls(files, part.path, begin=part.begin, end=part.end, before=part.before)

    @property
    def place(self) -> Place:
        """In the part, as long as nobody knows how many rows are before it."""
        row = None if self.row is None else self.row + (self.before or 0)
        return Place(self.name, row, self.unit)

    @property
    def first(self) -> bool:
        """Whether this is the first row of the file."""
        return self.row == 1 and self.begin == 0

    def __str__(self) -> str:
        """In the file. What is before the part is counted only now, when something is to be told."""
        if self.before is None:
            self.before = line_ranges.lines_before(partial(self.files.open, self.path), self.begin)
        return str(self.place)

    def bad(self, problem: str) -> DataError:
        return DataError(f"{self.files.field}: {self} {problem}")


def read(files: Files, path: Path, reader: Callable[[Reading], Iterator[T]]) -> Iterator[T]:
    """What `reader` yields of a whole file."""
    return read_at(Reading(files, path), reader)


def read_at(at: Reading, reader: Callable[[Reading], Iterator[T]]) -> Iterator[T]:
    """What `reader` yields: every reader is called by this."""
    with told(at.files.field, at):
        _refuse_no_file(at)
        try:
            yield from reader(at)
        except pa.ArrowMemoryError as error:
            raise at.bad(
                f"asks for more memory than there is ({error}): it is damaged, or has too large parts"
            ) from error


def _refuse_no_file(at: Reading) -> None:
    empty = not at.files.size(at.path)
    if not at.files.streamed:  # that would take a request of its own, and a hub gives what a pointer points to
        with at.path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        if problem := belied(head, at.path.suffix):
            raise at.bad(problem)
    if empty and at.path.suffix in COMPRESSIONS:
        said = "is empty, as no compressed file is; copy it again"  # Arrow takes it for an empty text
        raise DamagedFileError(str(at.bad(said)))


def open_bytes(at: Reading) -> BinaryIO:
    """The file's bytes, decompressed if its suffix says so."""
    found, codec = open_for_arrow(at.files, at.path), CODECS.get(at.path.suffix)
    return cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(found, codec) if codec else found))


def open_for_arrow(files: Files, path: Path) -> pa.NativeFile:
    """A file on a claim is no memory map: one that becomes shorter would kill the process."""
    return pa.PythonFile(files.open(path), "r") if files.streamed else pa.OSFile(str(path))


@contextmanager
def open_lines(at: Reading) -> Iterator[Callable[[int], bytes]]:
    """Reads the whole lines of a part: from the first that begins in it to the end of the last."""
    if at.begin == 0 and at.end is None:
        with open_bytes(at) as stream:
            yield stream.read
        return
    with at.files.open(at.path) as stream:
        stop = None if at.end is None else line_ranges.next_line(stream, at.end)
        position = line_ranges.next_line(stream, at.begin)
        stream.seek(position)

        def read_some(most: int) -> bytes:
            nonlocal position
            block = stream.read(most if stop is None else max(0, min(most, stop - position)))
            position += len(block)
            return block

        yield read_some


def read_text(at: Reading) -> bytes:
    """A whole file, without a byte order mark."""
    parts, size = [], 0
    with open_bytes(at) as stream:
        while size <= DOCUMENT_BYTES and (block := stream.read(BLOCK)):
            parts.append(block)
            size += len(block)
            _refuse_excess(at, size, size)
    return b"".join(parts).removeprefix(MARK)


def read_lines(at: Reading) -> Iterator[bytes]:
    r"""Lines that are not blank; `at.row` counts all from 1. A line ends with \n, \r\n or, as on old Macs, \r."""
    at.row, unpacked = 1, 0
    with open_lines(at) as read_some:
        line: list[bytes] = []
        length, ended_by_cr = 0, False
        while block := read_some(BLOCK):
            unpacked += len(block)
            if ended_by_cr and block.startswith(b"\n"):
                block = block[1:]
            for part in block.splitlines(keepends=True):
                line.append(part)
                length += len(part)
                _refuse_excess(at, length, unpacked)
                if part.endswith((b"\n", b"\r")):
                    if text := _content(line):
                        yield text
                    at.row, line, length = at.row + 1, [], 0
            ended_by_cr = block.endswith(b"\r") or (not block and ended_by_cr)
        if text := _content(line):
            yield text


def _content(parts: list[bytes]) -> bytes:
    return b"".join(parts).removeprefix(MARK).strip()


def refuse_long(at: Reading, length: int) -> None:
    if length > DOCUMENT_BYTES:
        raise at.bad(f"is longer than {DOCUMENT_BYTES >> 20} MiB, the most of one document; split it")


def _refuse_excess(at: Reading, length: int, unpacked: int) -> None:
    """Raises DataError for a document that is too long, and for a file of which too much is unpacked so far."""
    refuse_long(at, length)
    if at.path.suffix in COMPRESSIONS and unpacked > UNPACKED_BYTES:
        packed = at.files.size(at.path)
        if unpacked > UNPACKED_TIMES * packed:
            raise at.bad(
                f"is in a file of {packed:,} bytes that unpacks to more than {unpacked:,}, over {UNPACKED_TIMES} times "
                "as many, as no text does; unpack it yourself if it is meant so"
            )


def encoding_of(data: bytes) -> str | None:
    """UTF-16 or UTF-32 if it looks like that: its letters of ASCII are valid UTF-8 too, with a NUL beside each."""
    if data.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return "UTF-32"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    head = data[:4096]
    nuls = [head[start::2].count(0) for start in (0, 1)]
    return "UTF-16" if len(head) >= 4 and max(nuls) > len(head) * 0.3 else None


def parse_object(line: str, at: Reading, make: Callable[[list[tuple[str, Any]]], Row] = dict) -> Row:
    """A JSONL line's object, each object in it by `make`. Raises DataError with file and line."""
    try:
        row = json.loads(line, object_pairs_hook=None if make is dict else make)
    except json.JSONDecodeError as error:
        more = whole_file(line) if at.first else ""
        raise at.bad(f"is not JSON: {error.msg} at column {error.colno}{more}") from error
    except (ValueError, RecursionError) as error:  # a number of 4,301 digits; brackets in brackets
        raise at.bad(f"is JSON that can't be read: {error}; correct or remove it") from error
    if isinstance(row, list) and at.first:
        raise at.bad(
            "must hold a JSON object, not list: the file is an array; write each element on a line (jq -c .[])"
        )
    if not isinstance(row, dict):
        raise at.bad(f"must hold a JSON object, not {type(row).__name__}")
    return row


def unique(pairs: list[tuple[str, Any]]) -> Row:
    """An object; of two values for one key JSON would keep the last in silence. Raises ValueError."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the key {twice[:80]!r} twice")
    return made


def decode_line(line: bytes, at: Reading) -> str:
    """Raises DataError for what is not UTF-8."""
    if encoding := encoding_of(line):
        raise at.bad(f"looks like {encoding}; convert the file: iconv -f {encoding} -t UTF-8")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        said = f"is not UTF-8: {error.reason} at byte {error.start} of the line"
        raise at.bad(f"{said}; convert the file: iconv -f ENCODING -t UTF-8") from error


def read_rows_of(files: Files, part: Part, columns: Collection[str] | None) -> Iterator[tuple[Place, Row]]:
    """Rows of a dataset as values of JSON; of a table the cells of `columns` alone are read (None: of all).

    A cell that wasn't read is None, so that a row names all its columns.
    """
    reader = _rows_of_lines if format_of(part.path) in LINES else lambda at: _rows_of_table(at, columns)
    return read_at(Reading.of(files, part), reader)


def _rows_of_lines(at: Reading) -> Iterator[tuple[Place, Row]]:
    for line in read_lines(at):
        text = decode_line(line, at)
        row = parse_object(text, at, unique)
        if _HALF_PAIR.search(text):
            _refuse_half_pairs(row, at)
        yield at.place, row


def _refuse_half_pairs(row: Row, at: Reading) -> None:
    r"""JSON can write half a surrogate pair as an escape (a text cut in the middle of an emoji); UTF-8 can't."""
    for column, value in row.items():
        try:
            json.dumps({column: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise at.bad(
                f"has half a character in {column.encode(errors='replace').decode()!r} "
                f"(\\u{ord(error.object[error.start]):x}, one of a surrogate pair); correct or remove it"
            ) from error


def _rows_of_table(at: Reading, columns: Collection[str] | None) -> Iterator[tuple[Place, Row]]:
    for names, batch in read_table(at, columns):
        unread: Row = dict.fromkeys(names)
        for row in _values(batch, at):
            yield at.place, {**unread, **row}


def _values(batch: pa.RecordBatch, at: Reading) -> Iterator[Row]:
    """Rows of a batch, `at` being at each. Those before a cell that can't be read are given."""
    first = at.row or 0
    try:
        batch.validate(full=True)  # Arrow trusts a file's offsets and doesn't check that strings are UTF-8
        rows = batch.to_pylist()
    except (pa.ArrowInvalid, ValueError):
        rows = None
    for number in range(len(batch)):
        at.row = first + number + 1
        if rows is None:
            yield plain(_row(batch.slice(number, 1), at), at)
        else:
            yield plain(rows[number], at)


def _row(cells: pa.RecordBatch, at: Reading) -> Row:
    row: Row = {}
    for name, cell in zip(cells.schema.names, cells.columns, strict=True):
        try:
            cell.validate(full=True)
            row[name] = cell.to_pylist()[0]
        except (pa.ArrowInvalid, ValueError) as error:
            what = "text that is not UTF-8" if "UTF" in str(error).upper() else f"what can't be read ({error})"
            raise at.bad(f"has in {name!r} {what}; correct or remove it") from error
    return row


def plain(value: Any, at: Reading) -> Any:
    """A table's value as JSON would have it. Raises DataError for bytes that are no text."""
    match value:
        case dict():
            return {name: plain(part, at) for name, part in value.items()}
        case list() | tuple():
            return [plain(part, at) for part in value]
        case None | str() | bool() | int() | float():
            return value
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError as error:
                raise at.bad(f"holds bytes that are no UTF-8 text ({value[:8]!r}…); leave that column out") from error
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat()
        case dt.timedelta():
            return value.total_seconds()
        case decimal.Decimal():
            return float(value)
        case _:
            return str(value)


def read_table(at: Reading, columns: Collection[str] | None) -> Iterator[tuple[list[str], pa.RecordBatch]]:
    """The names of all columns, and batches of those in `columns`; `at` is before the first row of each batch."""
    done, at.unit = 0, "row"
    batches = _parquet_batches if format_of(at.path) == ".parquet" else _arrow_batches
    for names, batch in batches(at, columns):
        if twice := next((name for name in batch.schema.names if names.count(name) > 1), None):
            at.row = None
            raise at.bad(f"has two columns {twice!r}; rename one")
        for begin in range(0, len(batch), TABLE_ROWS):
            at.row = done + begin
            yield names, batch.slice(begin, TABLE_ROWS)
        done += len(batch)
        at.row = done + 1  # where reading the next batch fails, if it does


def _parquet_batches(at: Reading, columns: Collection[str] | None) -> Iterator[tuple[list[str], pa.RecordBatch]]:
    with open_for_arrow(at.files, at.path) as source, pq.ParquetFile(source) as parquet:
        _refuse_excess_of_parquet(at, parquet)
        names = parquet.schema_arrow.names
        wanted = names if columns is None else [name for name in names if name in columns]
        at.row = 1
        groups = range(parquet.metadata.num_row_groups)[at.begin : at.end]
        for batch in parquet.iter_batches(batch_size=TABLE_ROWS, columns=wanted, row_groups=list(groups)):
            # by a name with a dot Arrow takes a column's part as well; two of a name are refused by the caller
            yield names, batch if len(set(wanted)) < len(wanted) else batch.select(wanted)


def _refuse_excess_of_parquet(at: Reading, parquet: pq.ParquetFile) -> None:
    packed, groups = at.files.size(at.path), range(parquet.metadata.num_row_groups)
    unpacked = max((parquet.metadata.row_group(group).total_byte_size for group in groups), default=0)
    if unpacked > UNPACKED_BYTES and unpacked > UNPACKED_TIMES * packed:
        raise at.bad(
            f"has {packed:,} bytes and a row group of {unpacked:,}, over {UNPACKED_TIMES} times as many, as no text "
            "has; write it anew with smaller row groups"
        )


def _arrow_batches(at: Reading, columns: Collection[str] | None) -> Iterator[tuple[list[str], pa.RecordBatch]]:
    """Of Arrow's stream or file format."""
    with open_for_arrow(at.files, at.path) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        if is_file:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            reader = pa.ipc.open_stream(source)
            batches = iter(reader)
        names, at.row = reader.schema.names, 1
        wanted = [number for number, name in enumerate(names) if columns is None or name in columns]
        for batch in batches:
            yield names, batch.select(wanted)
