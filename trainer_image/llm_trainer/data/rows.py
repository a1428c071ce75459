"""Rows of a fine-tuning dataset: JSONL or Parquet in TRL's formats, read and checked before any GPU is taken."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from llm_trainer.config import DatasetCheck
from llm_trainer.data.chat_template import ROLES
from llm_trainer.data.files import find_files
from llm_trainer.data.manifest import Split
from llm_trainer.data.readers import LINES, TABLES, read_rows_of
from llm_trainer.runtime.errors import DataError

SUFFIXES = (*LINES, *TABLES)

Row = dict[str, Any]


def read_rows(check: DatasetCheck, volumes_root: str) -> Iterator[Row]:
    """Every row's columns that the stage needs: of the sets of columns that would do, the first that row 1 has.

    Raises DataError with the field, the file and the line when a file, a row or a cell is not as it must be, or when
    there is no row.
    """
    files = find_files(check.uri, check.field, volumes_root, SUFFIXES)
    any_of_columns = check.any_of_columns
    needed = {*check.optional_columns}.union(*any_of_columns)
    empty = True
    for path in files.paths:
        for place, row in read_rows_of(files, path, None if "*" in needed else needed):
            where = f"{check.field}: {place}"
            columns = needed_columns(row, any_of_columns, where)
            any_of_columns = [columns]  # rows of two formats would not make one dataset
            for column in columns:
                check_value(row[column], column, where)
            check_answers(row, columns, where)
            empty = False
            if "margin" in check.optional_columns:
                check_margin(row.get("margin"), where)
            taken = [*columns, *(row if "*" in check.optional_columns else check.optional_columns)]
            yield {column: row[column] for column in taken if row.get(column) is not None}
    if empty:
        raise DataError(f"{check.field}: {check.uri} has no rows")


def needed_columns(row: Row, any_of_columns: list[list[str]], where: str) -> list[str]:
    """The first set of columns that the row has. Raises DataError if it has none of them."""
    for columns in any_of_columns:
        if all(row.get(column) is not None for column in columns):
            return columns
    needed = ", or ".join(" and ".join(columns) for columns in any_of_columns)
    wanted = {column for columns in any_of_columns for column in columns}
    found = [f"{column} (null)" if value is None and column in wanted else column for column, value in row.items()]
    raise DataError(f"{where} needs the columns {needed}; it has {', '.join(found) or 'none'}")


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


def check_answers(row: Row, columns: list[str], where: str) -> None:
    """Raises DataError for an answer that is empty, and for a pair that prefers nothing."""
    for column in ("completion", "chosen", "rejected"):
        if column in columns and not text_of(row[column]).strip():
            raise DataError(f"{where}: {column} is empty; write an answer or remove the row")
    if "chosen" in columns and row["chosen"] == row["rejected"]:
        raise DataError(f"{where}: chosen and rejected are equal, so there is nothing to prefer; remove the row")


def check_margin(value: object, where: str) -> None:
    """Raises DataError unless it is left out or a number."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise DataError(f"{where}: margin must be a number, not {json.dumps(value, ensure_ascii=False)[:80]}")


def text_of(value: str | list[dict[str, str]]) -> str:
    """The text, or what the last turn of a conversation says."""
    return value if isinstance(value, str) else value[-1]["content"]


def check_value(value: object, column: str, where: str) -> None:
    """Raises DataError unless a cell holds text or, for `messages` always, a conversation."""
    if column == "label":
        if isinstance(value, bool):
            return
        raise DataError(f"{where}: label must be true or false, not {json.dumps(value, ensure_ascii=False)[:80]}")
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
