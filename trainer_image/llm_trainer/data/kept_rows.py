"""Rows of a dataset, tokens or prompts as JSON: data preparation, which makes all to see if they are right, keeps them.

So the processes of a stage map two files instead of making every row once more each. What was kept under another key,
or isn't as it was written, is none: the stage's processes make the rows, as they do without a preparation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import transformers
from pydantic import BaseModel, ValidationError
from transformers import PreTrainedTokenizerBase

from llm_trainer.config import DatasetCheck
from llm_trainer.data.examples import Example
from llm_trainer.data.files import find_files
from llm_trainer.data.rows import SUFFIXES
from llm_trainer.protocol import Notice
from llm_trainer.runtime.digests import digest_of
from llm_trainer.runtime.removal import remove

FOLDER, WRITTEN = "rows", "rows.json"  # of a run folder; of a key's folder
TRAIN, HELD_OUT = "train.arrow", "held-out.arrow"
ROWS_AT_A_TIME = 1024
TOKENS = pa.large_list(pa.int32())
COLUMN_TYPES = {"label": pa.bool_(), "margin": pa.float64(), "row": pa.large_string()}
UNDECIDING = {"field", "stage", "warmup_rows", "training_tokenizer", "model_uri", "length_field", "rows_per_step"}


class Written(BaseModel):
    """``files``: the BLAKE3 digest of each; ``columns``: those that any prompt's row has."""

    files: dict[str, str]
    notices: list[Notice]
    columns: list[str]


class KeptRows(BaseModel, arbitrary_types_allowed=True):
    """Of one dataset, mapped into memory, not read."""

    train: pa.Table
    held_out: pa.Table
    notices: list[Notice]
    columns: list[str]


def key_of(check: DatasetCheck, tokenizer: PreTrainedTokenizerBase, volumes_root: str) -> str:
    """Of all that decides the rows: how they are read, the files as they are now, the tokenizer and our own code."""
    files = [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns)
             for path in find_files(check.uri, check.field, volumes_root, SUFFIXES).paths]  # fmt: skip
    decided = check.model_dump(mode="json", exclude=UNDECIDING)
    said = [decided, files, tokenizer_content(tokenizer), code_digest(), transformers.__version__]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def tokenizer_content(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """What it makes of a text, however its files were written."""
    fast = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else tokenizer.get_vocab()
    for name in ("padding", "truncation"):
        fast.pop(name, None)
    return [type(tokenizer).__name__, fast, tokenizer.chat_template, dict(tokenizer.special_tokens_map)]


@cache
def code_digest() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def write_rows(
    folder: Path, whole: pa.Table, chosen: npt.NDArray[np.bool_], notices: list[Notice], columns: Iterable[str]
) -> None:
    """``chosen``: for each row whether it is held out."""
    whole = with_margins(whole)
    for name, mask in ((TRAIN, ~chosen), (HELD_OUT, chosen)):
        write_batches(folder / name, filtered(whole, mask), whole.schema)
    files = {name: digest_of(folder / name) for name in (TRAIN, HELD_OUT)}
    written = Written(files=files, notices=notices, columns=list(columns))
    (folder / WRITTEN).write_text(written.model_dump_json())


def find_rows(folder: Path, key: str) -> KeptRows | None:
    """None where there are none, or other than were written."""
    try:
        written = Written.model_validate_json((folder / key / WRITTEN).read_bytes())
        if any(digest_of(folder / key / name) != written.files.get(name) for name in (TRAIN, HELD_OUT)):
            return None
        train, held_out = (mapped(folder / key / name) for name in (TRAIN, HELD_OUT))
    except (OSError, ValidationError, pa.ArrowException):
        return None
    return KeptRows(train=train, held_out=held_out, notices=written.notices, columns=written.columns)


def remove_others(folder: Path, keys: set[str]) -> None:
    """What earlier attempts and other configurations have left."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name not in keys:
            remove(entry)


# --- tables ---


def table_of(examples: Iterable[Example]) -> pa.Table:
    """In memory."""
    return with_margins(pa.Table.from_batches(list(batches_of(examples))))


def batches_of(examples: Iterable[Example]) -> Iterator[pa.RecordBatch]:
    """Tokens as int32, four bytes each."""
    for batch in batched(examples, ROWS_AT_A_TIME):
        arrays = {
            name: pa.array([example[name] for example in batch], type=COLUMN_TYPES.get(name, TOKENS))
            for name in batch[0]
        }
        yield pa.record_batch(arrays)


def with_margins(table: pa.Table) -> pa.Table:
    """A margin counts as 0 where only other rows have one."""
    if "margin" not in table.column_names:
        return table
    margins = table["margin"]
    table = table.drop_columns("margin")
    return table.append_column("margin", pc.fill_null(margins, 0.0)) if margins.null_count < len(margins) else table


def write_batches(file: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema | None = None) -> None:
    """`schema`: where there may be no batch."""
    with ExitStack() as stack:
        writer = stack.enter_context(pa.ipc.new_file(file, schema)) if schema else None
        for batch in batches:
            writer = writer or stack.enter_context(pa.ipc.new_file(file, batch.schema))
            writer.write_batch(batch)


def filtered(table: pa.Table, mask: npt.NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
    """Of a mapped table a batch at a time is in memory."""
    begin = 0
    for batch in table.to_batches(ROWS_AT_A_TIME):
        yield batch.filter(pa.array(mask[begin : begin + len(batch)]))
        begin += len(batch)


def mapped(file: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()


def batched(items: Iterable[Example], size: int) -> Iterator[list[Example]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
