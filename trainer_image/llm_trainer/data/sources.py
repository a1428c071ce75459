"""Reads the corpus: the documents in the files that a source names, in an order that never changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from llm_trainer.data.files import LINES, Files, Place, format_of
from llm_trainer.data.readers import (
    MARK,
    Reading,
    encoding_of,
    parse_object,
    read_at,
    read_lines,
    read_table,
    read_text,
    refuse_long,
)


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A document as it lies in the file; text is None where its bytes are not UTF-8, and `looks_like` may say more."""

    text: str | None
    place: Place
    looks_like: str | None = None


def read_documents(files: Files, text_field: str) -> Iterator[RawDocument]:
    """All documents: a `.txt` file is one, a JSONL line is one, a table's row is one."""
    for path in files.paths:
        yield from read_part(Reading(files, path), text_field)


def read_part(at: Reading, text_field: str) -> Iterator[RawDocument]:
    """Of a file or a part of one; `at` tells how far it is."""
    match format_of(at.path):
        case ".txt":
            return read_at(at, lambda at: iter([_document(read_text(at), at)]))
        case suffix if suffix in LINES:
            return read_at(at, lambda at: (_document_of_line(line, at, text_field) for line in read_lines(at)))
        case _:
            return read_at(at, lambda at: _documents_of_table(at, text_field))


def _document(data: bytes, at: Reading) -> RawDocument:
    encoding = encoding_of(data)
    try:
        return RawDocument(None if encoding else data.removeprefix(MARK).decode(), at.place, encoding)
    except UnicodeDecodeError:
        return RawDocument(None, at.place)


def _document_of_line(line: bytes, at: Reading, text_field: str) -> RawDocument:
    raw = _document(line, at)
    if raw.text is None:
        return raw
    row = parse_object(raw.text, at)
    value = _field(row, text_field)
    if not isinstance(value, str):
        found = f"a {type(value).__name__}" if text_field in row else f"only {', '.join(map(repr, row)) or 'nothing'}"
        raise at.bad(f"needs a string {text_field!r} (textField) and has {found}{_inner(value, text_field)}")
    return RawDocument(_encodable(value), at.place)


def _field(row: Any, text_field: str) -> Any:
    """Of a name with dots that the row doesn't have, the parts lead into objects."""
    if text_field in row or "." not in text_field:
        return row.get(text_field)
    for part in text_field.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


def _inner(value: object, text_field: str) -> str:
    names = [name for name, part in value.items() if isinstance(part, str)] if isinstance(value, dict) else []
    return f"; set textField to a field in it, such as {text_field}.{names[0]}" if names else ""


def _encodable(text: str) -> str | None:
    """None for text with half a surrogate pair, which JSON can write as an escape and UTF-8 can't write."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text


def _documents_of_table(at: Reading, text_field: str) -> Iterator[RawDocument]:
    for names, batch in read_table(at, {text_field, text_field.split(".")[0]}):
        before = at.row or 0
        for number, value in enumerate(_cells(batch, names, at, text_field), start=1):
            at.row = before + number
            if value is None:
                raise at.bad(f"needs a string {text_field!r} (textField) and has null")
            refuse_long(at, len(value))
            yield _document(value, at)


def _cells(batch: pa.RecordBatch, names: list[str], at: Reading, text_field: str) -> Iterator[bytes | None]:
    """Cells as bytes: Arrow does not check that its strings are UTF-8."""
    column, kinds = _column(batch, names, at, text_field), pa.types
    if kinds.is_dictionary(column.type):
        column.validate(full=True)
        column = column.dictionary_decode()
    is_text = (kinds.is_string, kinds.is_large_string, kinds.is_string_view, kinds.is_binary, kinds.is_large_binary,
               kinds.is_binary_view, kinds.is_fixed_size_binary, kinds.is_null)  # fmt: skip
    if not any(is_kind(column.type) for is_kind in is_text):
        parts = [part.name for part in column.type] if kinds.is_struct(column.type) else []
        inner = f"; set textField to a field in it, such as {text_field}.{parts[0]}" if parts else ""
        at.row = None
        raise at.bad(f"has a column {text_field!r} (textField) of {column.type}, and it must hold strings{inner}")
    column = column.cast(pa.large_binary())
    column.validate(full=True)
    return (value.as_py() for value in column)


def _column(batch: pa.RecordBatch, names: list[str], at: Reading, text_field: str) -> pa.Array:
    if text_field in names:
        return batch.column(text_field)
    first, *parts = text_field.split(".")
    column = batch.column(first) if first in names else None
    for part in parts:
        if column is None or not pa.types.is_struct(column.type) or column.type.get_field_index(part) < 0:
            column = None
            break
        column = pc.struct_field(column, part)
    if column is None or not parts:
        at.row = None
        raise at.bad(f"has no column {text_field!r} (textField), only {', '.join(names)}")
    return column
