"""From raw files to documents: NFC, each with its digest and its split. A pass over a unit is a stream."""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from llm_trainer.config import Data
from llm_trainer.data.files import LINES, Place, format_of
from llm_trainer.data.manifest import Split
from llm_trainer.data.readers import Reading
from llm_trainer.data.sources import RawDocument, read_part
from llm_trainer.data.units import Unit
from llm_trainer.runtime.errors import DamagedFileError

MARKS = 1024  # combining ones in a row


@dataclass(frozen=True, slots=True)
class Document:
    text: str  # NFC, not blank
    size: int  # bytes as UTF-8
    digest: bytes  # of the text as it was read
    split: Split
    place: Place


class Damaged(NamedTuple):
    """A file of which what comes after its damage was skipped."""

    file: str  # as the user knows it
    bytes: int
    message: str


class Invalid(NamedTuple):
    """Where bytes are that are no UTF-8, and what they look like."""

    file: int
    row: int
    looks_like: str | None


@dataclass(slots=True)
class UnitReader:
    """One pass over a unit: iterate `documents()` to its end, then the counts are final."""

    unit: Unit
    data: Data
    invalid: int = 0
    empty: int = 0
    first_invalid: Invalid | None = None
    file: int = 0  # of the unit's parts, the one that is being read
    row: int = -1  # in the part; -1 where a file is one document
    rows: list[int] = field(default_factory=list)  # of each part
    damaged: list[Damaged] = field(default_factory=list)

    def documents(self) -> Iterator[Document]:
        """Those that are text, equal ones too."""
        for file, part in enumerate(self.unit.parts):
            self.file = file
            at = Reading.of(self.unit.files, part)
            for raw in self._read(at):
                self.row = -1 if at.row is None else at.row
                if raw.text is None:
                    self.invalid += 1
                    self.first_invalid = self.first_invalid or Invalid(self.file, self.row, raw.looks_like)
                    continue
                text = normalise(raw.text)
                if not text.strip():
                    self.empty += 1
                    continue
                encoded = text.encode()
                digest = hashlib.blake2b(encoded, digest_size=16).digest()
                split = split_of(digest, self.data.seed, self.data.validation_fraction)
                yield Document(text, len(encoded), digest, split, raw.place)
            self.rows.append((at.row or 1) - 1)

    def _read(self, at: Reading) -> Iterator[RawDocument]:
        """Of a part; where some files may be damaged, to where it is."""
        try:
            yield from read_part(at, self.unit.source.text_field)
        except DamagedFileError as error:
            if not self.data.max_damaged_fraction:
                raise
            self.damaged.append(Damaged(at.name, self.unit.files.size(at.path), str(error)))


def place_of(unit: Unit, file: int, row: int) -> Place:
    """Of a document of a unit whose parts are resolved."""
    at = Reading.of(unit.files, unit.parts[file])
    at.row, at.unit = (None if row < 0 else row), "line" if format_of(at.path) in LINES else "row"
    return at.place


def normalise(text: str) -> str:
    """NFC: characters that look the same are written the same.

    Marks on one letter are sorted, in time by the square of their number: so many as no script has are taken apart.
    """
    if text.isascii():
        return text
    return "".join(
        part if unicodedata.is_normalized("NFC", part) else unicodedata.normalize("NFC", part)
        for part in _many_marks().split(text)
    )


@cache
def _many_marks() -> re.Pattern[str]:
    marks = "".join(chr(code) for code in range(0x300, sys.maxunicode + 1) if unicodedata.combining(chr(code)))
    return re.compile(f"([{marks}]{{{MARKS}}})")


def split_of(digest: bytes, seed: int, validation_fraction: float) -> Split:
    """Which split a document is in: follows from the document alone, so it stays when others are added or moved."""
    return "validation" if is_chosen(digest, f"held out {seed}", validation_fraction) else "train"


def is_chosen(digest: bytes, purpose: str, share: float) -> bool:
    """A pseudo-random choice of `share` of all documents; choices for two purposes are independent."""
    hashed = hashlib.blake2b(digest, digest_size=8, key=purpose.encode()).digest()
    return int.from_bytes(hashed, "little") < share * 2**64
