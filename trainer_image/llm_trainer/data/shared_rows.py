"""The rows of a dataset are made by all processes together: of data preparation, or of a stage that finds none.

A share of the dataset (rows.py) is a piece of work (sharing.py), so any number of processes makes the same bytes, and
an attempt goes on with what one before has made. The first process puts the shares together, behind the fence.
"""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from llm_trainer.config import DatasetCheck
from llm_trainer.data.examples import Example, Examples, Tally
from llm_trainer.data.kept_rows import (
    WRITTEN,
    KeptRows,
    batches_of,
    find_rows,
    key_of,
    mapped,
    write_batches,
    write_rows,
)
from llm_trainer.data.line_ranges import lines_before
from llm_trainer.data.readers import Part
from llm_trainer.data.rows import Share, shares_of
from llm_trainer.data.sharing import PAUSE_SECONDS, Piece, Sharing, flush
from llm_trainer.runtime.errors import ConfigurationError, DataError
from llm_trainer.runtime.removal import remove

WORK = ".work"  # beside the rows of all keys
ROWS, TALLY, NUMBERS = "rows.arrow", "tally.json", "numbers.bin"  # of a share
ROWS_BETWEEN = 256  # about half a second
COUNTS = ("rows", "too_long", "cut", "merged")


class RowMaking:
    """One process's part of it."""

    def __init__(
        self,
        check: DatasetCheck,
        tokenizer: PreTrainedTokenizerBase,
        volumes_root: str,
        sharing: Sharing,
    ) -> None:
        """``sharing``: in the folder WORK of that which holds all rows; its `waiting` is called also between rows."""
        self.check, self.tokenizer, self.volumes_root, self.sharing = check, tokenizer, volumes_root, sharing
        self.key = key_of(check, tokenizer, volumes_root)

    @property
    def folder(self) -> Path:
        """Where the rows appear, whole or not at all."""
        return self.sharing.folder.parent / self.key

    def make(self) -> Examples:
        """All rows, with whoever helps; what is to be said of them. Raises what `Examples` does."""
        self.sharing.may_write()
        remove(self.folder)  # of an earlier attempt, or damaged
        examples = Examples(self.check, self.tokenizer, self.volumes_root)
        examples.take([read_tally(folder) for folder in self._share()])
        return examples

    def help(self) -> None:
        """Of a process that isn't the first."""
        if not (self.folder / WRITTEN).exists():
            with suppress(FileNotFoundError):  # the first one has put the shares together just now, and removed them
                self._share()

    def commit(self, examples: Examples) -> bool:
        """Keep what was made; not if a file has changed meanwhile. Raises what `may_write` of the sharing does."""
        work, folder = self.sharing.folder / self.key, self.folder
        same = self.key == key_of(self.check, self.tokenizer, self.volumes_root)
        if same:
            temporary = folder.with_name(f".tmp-{self.sharing.attempt}-{self.key}")
            remove(temporary)
            temporary.mkdir()
            columns = examples.tally.columns
            write_rows(temporary, self._made(), examples.held_out(), examples.notices(), columns)
            flush(temporary)
            self.sharing.may_write()
            temporary.rename(folder)
        remove(work)
        return same

    def find_or_make(self) -> KeptRows:
        """In a stage, whose processes all call it. Raises DataError also for files that change meanwhile."""
        kept = find_rows(self.folder.parent, self.key)
        if kept is None and self.sharing.first and not self.commit(self.make()):
            said = f"{self.check.field}: {self.check.uri} changed while it was read"
            raise DataError(f"{said}; let nobody write there until the stage has begun")
        if kept is None:
            self.help()
        while not (kept := kept or find_rows(self.folder.parent, self.key)):
            self.sharing.waiting()
            time.sleep(PAUSE_SECONDS)
        return kept

    def _share(self) -> list[Path]:
        self.sharing.folder.mkdir(parents=True, exist_ok=True)
        shares = shares_of(self.check, self.volumes_root)
        pieces = [Piece(f"{number:05d}", partial(self._write, share)) for number, share in enumerate(shares)]
        return self.sharing.share(self.key, pieces)

    def _made(self) -> pa.Table:
        """In the dataset's order; a share without rows has no file."""
        files = sorted((self.sharing.folder / self.key).glob(f"[0-9]*/{ROWS}"))
        return pa.concat_tables([mapped(file) for file in files])

    def _write(self, share: Share, folder: Path) -> None:
        examples = Examples(self.check, self.tokenizer, self.volumes_root)
        try:
            write_batches(folder / ROWS, batches_of(telling(examples.of_share(share), self.sharing.waiting)))
        except (DataError, ConfigurationError):
            if any(part.before is None for part in share.parts):
                self._write(counted(share), folder)  # fails again, and names the line as it is counted in the file
            raise
        write_tally(folder, examples.tally)


def counted(share: Share) -> Share:
    """What is before each part is counted only where something is to be told."""
    parts = (part if part.before is not None else replace(part, before=rows_before(part)) for part in share.parts)
    return share._replace(parts=tuple(parts))


def rows_before(part: Part) -> int:
    return lines_before(lambda: part.path.open("rb"), part.begin)


def telling(examples: Iterable[Example], alive: Callable[[], None]) -> Iterator[Example]:
    for number, example in enumerate(examples):
        if number % ROWS_BETWEEN == 0:
            alive()
        yield example


def write_tally(folder: Path, tally: Tally) -> None:
    with (folder / NUMBERS).open("wb") as stream:
        tally.row_numbers.tofile(stream)
        tally.prompt_numbers.tofile(stream)
    said = {name: getattr(tally, name) for name in COUNTS}
    labels = sorted(tally.labels.items())
    said |= {"labels": labels, "unread": sorted(tally.unread), "keys": sorted(tally.keys)}
    said["columns"] = list(tally.columns)
    (folder / TALLY).write_text(json.dumps(said))


def read_tally(folder: Path) -> Tally:
    said: dict[str, Any] = json.loads((folder / TALLY).read_text())
    numbers = array("Q")
    numbers.frombytes((folder / NUMBERS).read_bytes())
    half = len(numbers) // 2
    return Tally(
        **{name: said[name] for name in COUNTS},
        labels={bool(label): int(count) for label, count in said["labels"]},
        unread=set(said["unread"]),
        keys=set(said["keys"]),
        columns=dict.fromkeys(said["columns"]),
        row_numbers=numbers[:half],
        prompt_numbers=numbers[half:],
    )
