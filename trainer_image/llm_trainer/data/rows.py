"""Rows of a fine-tuning dataset: JSONL or Parquet in TRL's formats, read and checked before any GPU is taken."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from llm_trainer.config import DatasetCheck
from llm_trainer.data.files import LINES, TABLES, Files, Place, find_files
from llm_trainer.data.formats import FORMATS, Row, align, format_of, likely_columns
from llm_trainer.data.messages import MEDIA, parsed, read_messages, read_tools, says_something, shown
from llm_trainer.data.readers import Part, read_rows_of
from llm_trainer.data.units import grouped
from llm_trainer.runtime.errors import DataError

SUFFIXES = (*LINES, *TABLES)
SHARE_BYTES, SHARES = 4 << 20, 512  # of files that one process reads at a time; at most so many of them
TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs")  # what a chat template reads beside the turns
ARGUMENTS = ("prompts", "completions", "completion", "completion_ids", "trainer_state", "log_extra", "log_metric",
             "environments", "tools")  # fmt: skip  # of a reward function by TRL; no column may have their names


def read_rows(check: DatasetCheck, volumes_root: str) -> Iterator[Row]:
    """Every row's columns that the stage needs, in one form; see `read_placed_rows`."""
    return (placed.row for placed in read_placed_rows(check, volumes_root))


def refuse_warmup(check: DatasetCheck, rows: int) -> None:
    """Raises DataError where the stage's warm-up outlasts so many rows."""
    if rows <= check.warmup_rows:
        stage, dot, _ = check.field.removesuffix(".dataset.uri").rpartition(".")
        raise DataError(
            f"{stage}{dot}schedule.warmupSteps: {check.uri} has {rows:,} rows to train on, and with these epochs the "
            f"warm-up alone takes {check.warmup_rows:,}, so that no step is left; lower it, or train for more epochs"
        )


class PlacedRow(NamedTuple):
    """``where`` it stands, for messages; the columns that the stage needs, and these as they were ``written``."""

    where: str
    row: Row
    written: Row


class Share(NamedTuple):
    """Of a dataset: what one process reads of it, and the columns and the type of prompt that its first row has."""

    parts: tuple[Part, ...]
    columns: list[str]
    form: type | None = None


def shares_of(check: DatasetCheck, volumes_root: str) -> list[Share]:
    """All of the dataset, in its order; they follow from its files alone. Raises DataError as `read_placed_rows`."""
    files = find_files(check.uri, check.field, volumes_root, SUFFIXES)
    size = SHARE_BYTES
    while size * SHARES < files.bytes:
        size *= 2
    rows = chain.from_iterable(rows_of_part(check, files, Part(path)) for path in files.paths)
    place, first = next(rows, (None, {}))
    if place is None:
        raise no_rows(files)
    where = f"{check.field}: {place}"
    columns, _ = needed_columns(first, check.any_of_columns, where, check.columns)
    form = type(read_value(first["prompt"], "prompt", where)) if "prompt" in columns else None
    return [Share(parts, columns, form) for parts, _ in grouped(files, size)]


def no_rows(files: Files) -> DataError:
    return DataError(f"{files.field}: {files.uri} has no rows")


def read_placed_rows(
    check: DatasetCheck, volumes_root: str, unread: set[str] | None = None, share: Share | None = None
) -> Iterator[PlacedRow]:
    """The columns that the stage needs, of every row, or of those of a share, which may be none.

    Of the sets of columns that would do, the first that row 1 has, in one form: turns with text for their content, and
    a prompt of its own beside answers. ``unread`` gets the names of columns that nobody reads.

    Raises DataError with the field, the file and the line when a file, a row or a cell is not as it must be, or when
    there is no row.
    """
    files = find_files(check.uri, check.field, volumes_root, SUFFIXES)
    any_of_columns = [share.columns] if share else check.any_of_columns
    empty = share is None
    for part in share.parts if share else map(Part, files.paths):
        for place, row in rows_of_part(check, files, part):
            where = f"{check.field}: {place}"
            columns, needed = needed_columns(row, any_of_columns, where, check.columns)
            any_of_columns = [columns]  # rows of two formats would not make one dataset
            whole = {**row, **needed}
            if part.path.suffix in TABLES:
                whole |= {column: without_nulls(whole.get(column)) for column in (*columns, *TEMPLATE_COLUMNS)}
            made = read_row(check, whole, columns, where)
            if unread is not None:
                unread.update(unread_columns(check, row, made, converted=bool(needed)))
            taken = [*columns, *(row if "*" in check.optional_columns else check.optional_columns)]
            yield PlacedRow(where, made, {column: whole[column] for column in taken if whole.get(column) is not None})
            empty = False
    if empty:
        raise no_rows(files)


def rows_of_part(check: DatasetCheck, files: Files, part: Part) -> Iterator[tuple[Place, Row]]:
    """Rows by what their columns are to the stage. A column that has such a name by chance makes room."""
    ours, looked_at = check.columns, columns_of(check)
    if looked_at is not None:
        looked_at = {ours.get(column, column) for column in looked_at}
    for place, row in read_rows_of(files, part, looked_at):
        if ours:
            named = {column: row[name] for column, name in ours.items() if name in row}
            row = {name: value for name, value in row.items() if name not in {*ours, *ours.values()}} | named
        yield place, row


def unread_columns(check: DatasetCheck, row: Row, made: Row, *, converted: bool) -> set[str]:
    """Of a row, those that its stage takes nothing of. A null in a column that it reads is none."""
    if "*" in check.optional_columns:
        return set()
    known = format_of(row) if converted else None
    empty = {column for column in (*check.optional_columns, *TEMPLATE_COLUMNS) if row.get(column) in (None, [], "")}
    return set(row) - set(made) - empty - set(known.columns + known.others if known else ())


def columns_of(check: DatasetCheck) -> Collection[str] | None:
    """What is looked at, so that a table's other columns are not decoded; None: all."""
    if "*" in check.optional_columns:
        return None
    formats = {column for known in FORMATS for column in (*known.columns, *known.others)}
    return {*check.optional_columns, *TEMPLATE_COLUMNS, *MEDIA, *formats}.union(*check.any_of_columns)


def needed_columns(
    row: Row, any_of_columns: list[list[str]], where: str, named: Mapping[str, str] | None = None
) -> tuple[list[str], Row]:
    """The first set of columns that the row has; and those that a conversion gives. Raises DataError if it has none.

    A row of a known format is that, also where it has its own text once more: the text is without the chat template.
    """
    known = format_of(row)
    converts = known is not None and ["messages"] in any_of_columns
    for columns in any_of_columns:
        if all(row.get(column) is not None for column in columns) and not (converts and columns == ["text"]):
            return columns, {}
    if known and converts:
        return ["messages"], {"messages": known.convert(row, where)}
    formats = (known.columns for known in FORMATS if any(column in row for column in known.columns))
    wanted = {column for columns in (*any_of_columns, *formats) for column in columns}
    told = [f"{column} (null)" if value is None and column in wanted else column for column, value in row.items()]
    needed = ", or ".join(" and ".join(columns) for columns in any_of_columns)
    said = f"{where} needs the columns {needed}; it has {', '.join(told) or 'none'}"
    if named and (absent := [f"{name} (for {column})" for column, name in named.items() if column not in row]):
        said += f", and not {', '.join(absent)}, as dataset.columns has it"
    elif known:
        said += f". That is the {known.name} format, which sft reads; for this stage write those columns"
    elif likely := likely_columns(row, any_of_columns):
        shown_names = ", ".join(f"{column}: {name}" for column, name in likely.items())
        said += f". If that is what they are, set dataset.columns: {{{shown_names}}}"
    raise DataError(said)


def read_row(check: DatasetCheck, row: Row, columns: list[str], where: str) -> Row:
    """What the stage reads of it. Raises DataError."""
    if media := [column for column in MEDIA if row.get(column) not in (None, [], "")]:
        raise DataError(
            f"{where} has {', '.join(media)}: a language model reads text alone; remove the column, or the row"
        )
    made = {column: read_value(row[column], column, where) for column in columns}
    if any(isinstance(value, list) for value in made.values()) and "*" not in check.optional_columns:
        made |= read_template_columns(row, where)
    if "prompt" in columns or "chosen" in columns:
        made = align(made, where)
    if check.kind == "dpo" and "prompt" not in columns and not made["prompt"]:
        raise DataError(
            f"{where}: chosen and rejected begin with nothing in common, so there is no prompt; write it, or name its "
            "column in dataset.columns"
        )
    check_answers(made, where)
    check_json(made, where)
    if "margin" in check.optional_columns and row.get("margin") is not None:
        made["margin"] = read_margin(row["margin"], where)
    if "*" in check.optional_columns:
        if taken := [column for column in ARGUMENTS if row.get(column) is not None]:
            raise DataError(
                f"{where} has the column {taken[0]}, the name of something else that a reward function is called "
                "with; rename it"
            )
        made |= {column: value for column, value in row.items() if column not in made and value is not None}
    return made


def read_value(value: object, column: str, where: str) -> Any:
    """A cell: text or, for `messages` always, a conversation. Raises DataError."""
    if column == "label":
        if isinstance(value, bool):
            return value
        raise DataError(f"{where}: label must be true or false, not {shown(value)}")
    if isinstance(value, str) and column != "messages":
        return value
    if isinstance(value, str) and value.lstrip().startswith("["):  # as Parquet and tables of text need it
        value = parsed(value, f"{where}: {column}")
    if isinstance(value, list) and value and column != "text":
        return read_messages(value, f"{where}: {column}")
    expected = {"messages": "a list of {role, content}", "text": "a string"}
    raise DataError(
        f"{where}: {column} must be {expected.get(column, 'a string or a list of {role, content}')}, not {shown(value)}"
    )


def read_template_columns(row: Row, where: str) -> Row:
    made: Row = {}
    if row.get("tools") not in (None, [], ""):
        made["tools"] = read_tools(row["tools"], f"{where}: tools")
    if row.get("chat_template_kwargs") is not None:
        if not isinstance(row["chat_template_kwargs"], dict):
            raise DataError(
                f"{where}: chat_template_kwargs must be an object, not {shown(row['chat_template_kwargs'])}"
            )
        made["chat_template_kwargs"] = row["chat_template_kwargs"]
    return made


def check_answers(row: Row, where: str) -> None:
    """Raises DataError for an answer that is empty, and for a pair that prefers nothing: the same in every format."""
    for column in ("completion", "chosen", "rejected"):
        value = row.get(column)
        if isinstance(value, list) and value[-1]["role"] != "assistant":
            raise DataError(f"{where}: {column} must end with a turn of the assistant, not of {value[-1]['role']}")
        if value is not None and not (says_something(value[-1]) if isinstance(value, list) else value.strip()):
            raise DataError(f"{where}: {column} is empty; write an answer or remove the row")
    if "chosen" in row and row["chosen"] == row["rejected"]:
        raise DataError(f"{where}: chosen and rejected are equal, so there is nothing to prefer; remove the row")
    if "text" in row and not row["text"].strip():
        raise DataError(f"{where}: text is empty; write one or remove the row")
    answers = [(n, turn) for n, turn in enumerate(row.get("messages", ())) if turn["role"] == "assistant"]
    if "messages" in row and not answers:
        raise DataError(f"{where}: messages has no turn of the assistant, so there is nothing to learn from it")
    for number, turn in answers:
        if not says_something(turn) and turn.get("weight") != 0:
            raise DataError(f"{where}: messages[{number}], an answer, is empty; write an answer or remove the row")
    if answers and all(turn.get("weight") == 0 for _, turn in answers):
        raise DataError(f"{where}: every answer has weight 0, so there is nothing to learn from it; remove the row")


def check_json(row: Row, where: str) -> None:
    """Raises DataError for what is not as JSON has it, such as a date of a table or NaN."""
    for column, value in row.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{where}: {column} is not as JSON has it: {error}; correct or remove it") from error


def read_margin(value: object, where: str) -> float:
    """Raises DataError unless it is a number."""
    number = float(value) if isinstance(value, float) or (type(value) is int and abs(value) < 2**63) else math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: margin must be a number, and finite, not {shown(value)}")
    return number


def without_nulls(value: Any) -> Any:
    """Of what Parquet's structs give: they have every key that any row has, null where a row has it not."""
    if isinstance(value, dict):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    return [without_nulls(part) for part in value] if isinstance(value, list) else value
