"""Rows of a fine-tuning dataset: JSONL or Parquet in TRL's formats, read and checked before any GPU is taken."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_trainer.config import DatasetCheck
from llm_trainer.data.chat_template import ROLES
from llm_trainer.data.manifest import Split
from llm_trainer.data.sources import PARQUET_ROWS, Files, Place, find_files, open_parquet, parse_object, read_lines
from llm_trainer.runtime.errors import DataError

SUFFIXES = (".jsonl", ".parquet")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DatasetFiles:
    """A dataset that a stage names: where the user wrote it, its files, and the columns that would do."""

    field: str
    files: Files
    any_of_columns: Sequence[Sequence[str]]


def find_dataset(check: DatasetCheck, volumes_root: str) -> DatasetFiles:
    """Raises DataError when no file matches or a file is neither JSONL nor Parquet."""
    return DatasetFiles(check.field, find_files(check.uri, check.field, volumes_root, SUFFIXES), check.any_of_columns)


def read_rows(dataset: DatasetFiles) -> Iterator[Row]:
    """The columns a stage needs of every row, checked. Raises DataError with file and line; a dataset has a row."""
    empty = True
    for path in dataset.files.paths:
        for place, row in _read_file(dataset, path):
            columns = _needed(dataset, row, place)
            for column in columns:
                check_value(row[column], column, f"{dataset.field}: {place}")
            empty = False
            yield {column: row[column] for column in columns}
    if empty:
        raise DataError(f"{dataset.field}: {dataset.files.uri} has no rows")


def split_rows(rows: Iterator[Row], validation_fraction: float, seed: int) -> dict[Split, list[Row]]:
    """Rows to train on and held-out ones, chosen by each row's hash; with a fraction above 0 at least one is held out.

    Raises DataError if nothing is left to train on.
    """
    hashed = [(hash_row(row, seed), row) for row in rows]
    border = validation_fraction * 2**64
    if validation_fraction > 0:
        border = max(border, min(number for number, _ in hashed) + 1)
    splits: dict[Split, list[Row]] = {
        "train": [row for number, row in hashed if number >= border],
        "validation": [row for number, row in hashed if number < border],
    }
    if not splits["train"]:
        raise DataError(f"all {len(hashed)} rows of the dataset are held out: add rows or lower its validationFraction")
    return splits


def hash_row(row: Row, seed: int) -> int:
    text = json.dumps(row, sort_keys=True, ensure_ascii=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little")


def check_value(value: object, column: str, where: str) -> None:
    """Raises DataError unless a cell holds text or, for `messages` always, a conversation."""
    if isinstance(value, str):
        if column != "messages":
            return
    elif isinstance(value, list) and value:
        for number, message in enumerate(value):
            _check_message(message, f"{where}: {column}[{number}]")
        if column == "messages" and not any(message["role"] == "assistant" for message in value):
            raise DataError(f"{where}: messages has no turn of the assistant, so there is nothing to learn from it")
        return
    expected = "a list of {role, content}" if column == "messages" else "a string or a list of {role, content}"
    raise DataError(f"{where}: {column} must be {expected}, not {json.dumps(value, ensure_ascii=False)[:80]}")


def _check_message(message: object, where: str) -> None:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise DataError(f"{where} must be an object with role and content")
    if message["role"] not in ROLES:
        raise DataError(f"{where}.role is {message['role']!r}; it must be one of {', '.join(ROLES)}")
    if not isinstance(message.get("content"), str):
        raise DataError(f"{where}.content must be a string")


def _needed(dataset: DatasetFiles, row: Row, place: Place) -> Sequence[str]:
    """The first set of columns that the row has."""
    for columns in dataset.any_of_columns:
        if all(row.get(column) is not None for column in columns):
            return columns
    needed = ", or ".join(" and ".join(columns) for columns in dataset.any_of_columns)
    raise DataError(f"{dataset.field}: {place} needs the columns {needed}; it has {', '.join(row) or 'none'}")


def _read_file(dataset: DatasetFiles, path: Path) -> Iterator[tuple[Place, Row]]:
    if path.suffix == ".parquet":
        yield from _rows_of_parquet(dataset.files, path)
        return
    for place, line in read_lines(dataset.files, path):
        try:
            text = line.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{dataset.field}: {place} is not UTF-8: {error.reason} at byte {error.start}") from error
        yield place, parse_object(text, place, dataset.field)


def _rows_of_parquet(files: Files, path: Path) -> Iterator[tuple[Place, Row]]:
    number = 0
    for batch in open_parquet(files, path).iter_batches(batch_size=PARQUET_ROWS):
        for row in batch.to_pylist():
            number += 1
            yield Place(files.name(path), number, "row"), row
