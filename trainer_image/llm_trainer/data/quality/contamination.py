"""Which documents quote an evaluation set: runs of words that both have (Brown et al. 2020, appendix C).

Case, punctuation and spaces don't count. Of a script without spaces a run has twice as many characters as words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_trainer.config import Decontamination
from llm_trainer.data.files import LINES, TABLES, Files, find_files, format_of
from llm_trainer.data.quality.text import Text, Verdict
from llm_trainer.data.readers import Part, encoding_of, read, read_rows_of, read_text
from llm_trainer.data.words import CHARACTERS_PER_WORD, Hashes, Words, words_of
from llm_trainer.runtime.errors import ConfigurationError, DataError

FEWEST = 8  # words: a text of fewer is too common to be told by; GPT-3's
MOST = 100_000_000  # n-grams: 1 GB of memory
FIELD = "spec.data.quality.decontamination.uris"
SUFFIXES = (".txt", *LINES, *TABLES)


@dataclass(frozen=True, slots=True)
class _Known:
    """The runs of one length, sorted, and in which of the URIs each is."""

    hashes: Hashes
    uris: NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Evaluations:
    """What evaluation sets hold, by the length of runs in tokens."""

    uris: tuple[str, ...]
    runs: dict[int, _Known]

    def filter(self, text: Text) -> Verdict:
        words = text.words
        for length, known in self.runs.items():
            found = words.ngrams(length)
            at = np.minimum(np.searchsorted(known.hashes, found), len(known.hashes) - 1)
            hits = np.flatnonzero(known.hashes[at] == found)
            if len(hits):
                first = int(hits[0])
                quoted = _written(words, first, length)
                return Verdict("ngram", detail=f"{quoted!r} is in {self.uris[known.uris[at[first]]]}")
        return Verdict()


def _written(words: Words, start: int, length: int) -> str:
    codes = words.codes[words.starts[start] : words.ends[start + length - 1]]
    return codes.astype("<u4").tobytes().decode("utf-32-le", "replace")[:200]


def read_evaluations(settings: Decontamination, volumes_root: str) -> Evaluations:
    """Raises DataError for a file that can't be read, and one that has nothing to compare by."""
    found: dict[int, list[tuple[Hashes, int]]] = {}
    total = 0
    for number, uri in enumerate(settings.uris):
        before = total
        for text in _texts(uri, f"{FIELD}[{number}]", volumes_root):
            length, hashes = _runs(words_of(text), settings.ngram)
            if len(hashes):
                found.setdefault(length, []).append((np.unique(hashes), number))
                total += len(hashes)
            if total > MOST:
                raise ConfigurationError(f"{FIELD}: has more than {MOST:,} n-grams up to {uri}; name fewer files")
        if total == before:
            fewest = min(FEWEST, settings.ngram)
            raise DataError(
                f"{FIELD}[{number}]: {uri} has no text of {fewest} words, or {fewest * CHARACTERS_PER_WORD} characters "
                "of a script without spaces, so nothing can be told by it; correct or remove it"
            )
    return Evaluations(tuple(settings.uris), {length: _known(found[length]) for length in sorted(found)})


def _runs(words: Words, ngram: int) -> tuple[int, Hashes]:
    """The runs of a text and their length in tokens: of a short text it is one run as a whole."""
    wanted, fewest = words.tokens(ngram), words.tokens(min(FEWEST, ngram))
    length = min(wanted, len(words.hashes))
    return (length, words.ngrams(length)) if length >= fewest else (0, words.hashes[:0])


def _known(parts: list[tuple[Hashes, int]]) -> _Known:
    hashes = np.concatenate([part for part, _ in parts])
    uris = np.concatenate([np.full(len(part), number, dtype=np.uint16) for part, number in parts])
    unique, first = np.unique(hashes, return_index=True)
    return _Known(unique, uris[first])


def evaluation_files(settings: Decontamination, volumes_root: str) -> list[Files]:
    return [_files(uri, f"{FIELD}[{number}]", volumes_root) for number, uri in enumerate(settings.uris)]


def _files(uri: str, field: str, volumes_root: str) -> Files:
    return find_files(uri, field, volumes_root, SUFFIXES)


def _texts(uri: str, field: str, volumes_root: str) -> Iterator[str]:
    """Every text in the files: of a row all its strings, however deep, because sets name their columns as they like."""
    files = _files(uri, field, volumes_root)
    for path in files.paths:
        if format_of(path) != ".txt":
            for _, row in read_rows_of(files, Part(path), None):
                yield from _strings(row)
            continue
        for data in read(files, path, lambda at: iter([read_text(at)])):
            if encoding_of(data):
                raise DataError(f"{field}: {files.name(path)} is not UTF-8; convert it to UTF-8")
            yield data.decode("utf-8", "replace")


def _strings(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
            case dict() as parts:
                waiting += parts.values()
            case list() as parts:
                waiting += parts
