"""From raw files to the corpus: NFC, exact duplicates dropped, held-out documents chosen.

One pass over a source is a stream: memory holds one document and 16 bytes (about 90 in Python's set) for each document
seen, by which duplicates are known.
"""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from llm_trainer.config import Data, Source
from llm_trainer.data.files import Files, find_files
from llm_trainer.data.manifest import Split
from llm_trainer.data.sources import SUFFIXES, RawDocument, read_documents
from llm_trainer.runtime.errors import DataError

MARKS = 1024  # combining ones in a row


@dataclass(frozen=True, slots=True)
class Document:
    text: str  # NFC, not blank
    size: int  # bytes as UTF-8
    digest: bytes
    split: Split


@dataclass(slots=True)
class Counts:
    """What became of a source's documents so far."""

    documents: int = 0
    duplicates: int = 0
    invalid: int = 0
    empty: int = 0
    bytes: int = 0
    first_invalid: RawDocument | None = None

    @property
    def seen(self) -> int:
        return self.documents + self.duplicates + self.invalid + self.empty


@dataclass(slots=True)
class SourceReader:
    """One source of one pass over the corpus: iterate `documents()` to its end, then `counts` are final."""

    source: Source
    files: Files
    data: Data
    digests: set[bytes]
    counts: Counts = field(default_factory=Counts)

    def documents(self) -> Iterator[Document]:
        """Raises DataError at the end of the source if more than the allowed share is not UTF-8."""
        counts = self.counts
        for raw in read_documents(self.files, self.source.text_field):
            if raw.text is None:
                counts.invalid += 1
                counts.first_invalid = counts.first_invalid or raw
                continue
            text = normalise(raw.text)
            if not text.strip():
                counts.empty += 1
                continue
            encoded = text.encode()
            digest = hashlib.blake2b(encoded, digest_size=16).digest()
            if digest in self.digests:
                counts.duplicates += 1
                continue
            self.digests.add(digest)
            counts.documents += 1
            counts.bytes += len(encoded)
            yield Document(text, len(encoded), digest, split_of(digest, self.data.seed, self.data.validation_fraction))
        self._refuse_invalid()

    def _refuse_invalid(self) -> None:
        counts, limit, first = self.counts, self.data.max_invalid_fraction, self.counts.first_invalid
        if first and counts.invalid > limit * counts.seen:
            looks = f", which looks like {first.looks_like}" if first.looks_like else ""
            convert = f"iconv -f {first.looks_like or 'ENCODING'} -t UTF-8"
            raise DataError(
                f"source {self.source.name!r}: {counts.invalid} of {counts.seen} documents are not UTF-8, more than "
                f"spec.data.maxInvalidFraction ({limit:g}) allows; the first is {first.place}{looks}. "
                f"Convert the files to UTF-8 ({convert}) or raise the limit."
            )


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


def find_sources(data: Data, volumes_root: str) -> list[tuple[Source, Files]]:
    """Every source with its files. Raises DataError naming the source's field when one has none."""
    return [
        (
            source,
            find_files(source.uri, f"spec.data.sources[{number}].uri (source {source.name!r})", volumes_root, SUFFIXES),
        )
        for number, source in enumerate(data.sources)
    ]


def read_corpus(data: Data, sources: list[tuple[Source, Files]]) -> Iterator[SourceReader]:
    """The sources in order; of two equal documents the first is kept, wherever the second lies."""
    digests: set[bytes] = set()
    for source, files in sources:
        yield SourceReader(source, files, data, digests)
