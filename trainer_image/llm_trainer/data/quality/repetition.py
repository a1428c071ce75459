"""Repetition in a document, by Gopher's measures (Rae et al. 2021, table A1)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_trainer.config import RepetitionQuality
from llm_trainer.data.quality.text import Measures, Text, Verdict, judge
from llm_trainer.data.words import Mask, Ngrams, Words

TOP, DUPLICATE = (2, 3, 4), (5, 6, 7, 8, 9, 10)  # words
_PARAGRAPHS = re.compile(r"\n\s*\n")


def repetition(settings: RepetitionQuality, text: Text) -> Verdict:
    return judge(settings, repetition_measures(text))


def repetition_measures(text: Text) -> Measures:
    paragraphs = [part.strip() for part in _PARAGRAPHS.split(text.text) if part.strip()]
    lines, line_characters = _duplicates(text.lines)
    parts, part_characters = _duplicates(paragraphs)
    top, duplicate = ngram_measures(text.words)
    return {
        "duplicate_lines": lines,
        "duplicate_paragraphs": parts,
        "duplicate_line_characters": line_characters,
        "duplicate_paragraph_characters": part_characters,
        "top_ngrams": top,
        "duplicate_ngrams": duplicate,
    }


def _duplicates(parts: list[str]) -> tuple[float, float]:
    """Shares of the parts, and of their characters, that came before."""
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count += 1
            characters += len(part)
        seen.add(part)
    return count / max(1, len(parts)), characters / max(1, sum(map(len, parts)))


def ngram_measures(words: Words) -> tuple[list[float], list[float]]:
    """Of each length in TOP the share of the most frequent run, of each in DUPLICATE that of runs that came before."""
    top, duplicate = [0.0] * len(TOP), [0.0] * len(DUPLICATE)
    for length, runs in repeated_runs(words, (*TOP, *DUPLICATE)):
        if length in TOP:
            top[TOP.index(length)] = _top(words, runs)
        else:
            duplicate[DUPLICATE.index(length)] = _covered(words, runs.places[~runs.is_first], runs.tokens)
    return top, duplicate


@dataclass(frozen=True, slots=True)
class Runs:
    """Those of one length that come more than once: where each is, and which others are the same."""

    tokens: int
    places: NDArray[np.int64]  # in their order
    which: NDArray[np.int64]  # of each place, the run by a number
    first: NDArray[np.int64]  # of each run, where among `places` it is first
    counts: NDArray[np.int64]

    @property
    def is_first(self) -> Mask:
        found = np.zeros(len(self.places), dtype=np.bool_)
        found[self.first] = True
        return found


def repeated_runs(words: Words, lengths: Sequence[int]) -> Iterator[tuple[int, Runs]]:
    """Of each length in words, shortest first, to the last of which any run comes twice.

    A run comes twice only where its beginning does, so that each length is sought only there.
    """
    found, places = Ngrams(words.hashes), np.arange(len(words.hashes))
    for length in lengths:
        tokens = words.tokens(length)
        hashes = found.of(tokens)
        places = places[: np.searchsorted(places, len(hashes))]
        _, first, which, counts = np.unique(hashes[places], return_index=True, return_inverse=True, return_counts=True)
        again = counts > 1
        if not again.any():
            return
        keep = again[which]
        numbers = np.cumsum(again) - 1
        at = np.cumsum(keep) - 1
        places = places[keep]
        yield length, Runs(tokens, places, numbers[which[keep]], at[first[again]], counts[again])


def _top(words: Words, runs: Runs) -> float:
    """Share of the characters that the most frequent run has. Of one that overlaps itself, as "a a a", no character
    counts twice.
    """
    most = runs.counts == runs.counts.max()
    # Of several as frequent ones that with most characters, as it is the worst.
    sizes = _sizes(words, runs.tokens)
    chosen = int(np.flatnonzero(most)[sizes[runs.places[runs.first[most]]].argmax()])
    return _covered(words, runs.places[runs.which == chosen], runs.tokens)


def _sizes(words: Words, tokens: int) -> NDArray[np.int64]:
    """Characters of each run."""
    sums = np.concatenate([[0], np.cumsum(words.ends - words.starts)])
    return np.asarray(sums[tokens:] - sums[:-tokens], dtype=np.int64)


def _covered(words: Words, runs: NDArray[np.int64], tokens: int) -> float:
    """Share of the tokens' characters that lie in one of the runs."""
    marks = np.zeros(len(words.starts) + 1, dtype=np.int64)
    marks[runs] += 1  # no two begin at the same place
    marks[runs + tokens] -= 1
    inside = np.cumsum(marks)[:-1] > 0
    lengths = words.ends - words.starts
    return float(lengths[inside].sum() / max(1, lengths.sum()))
