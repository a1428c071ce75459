"""The words of a text, of any script, as numbers: what rules count, and n-grams by which texts are compared.

A token is a run of letters and digits, or one character of a script that writes no spaces, such as Japanese.
Where a rule counts words, two such characters are one: the demo's manuals have 1.8 to 2.0 of them for each word of
their English originals. All is numpy over code points, so that a text costs the same in any language.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from sys import maxunicode
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

CHARACTERS_PER_WORD = 2  # of a script without spaces

# Kana and kanji with their marks of iteration and length, Bopomofo, Thai, Lao, Tibetan, Myanmar, Khmer.
WITHOUT_SPACES = (
    (0x3005, 0x3007), (0x3031, 0x3035), (0x3041, 0x3096), (0x309D, 0x309F), (0x30A1, 0x30FA), (0x30FC, 0x30FF),
    (0x3100, 0x312F), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F),
    (0x20000, 0x3FFFD), (0x0E01, 0x0E3A), (0x0E40, 0x0E4E), (0x0E81, 0x0ECF), (0x0F40, 0x0FBC), (0x1000, 0x104F),
    (0x1780, 0x17D3),
)  # fmt: skip

Codes = NDArray[np.uint32]
Hashes = NDArray[np.uint64]
Mask = NDArray[np.bool_]
Positions = NDArray[np.int64]

SPACE, LETTER, DIGIT, SOLO = 1, 2, 4, 8
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)


@cache
def _classes() -> NDArray[np.uint8]:
    """What each code point is."""
    found = np.zeros(maxunicode + 1, dtype=np.uint8)
    for code in (*range(0x40000), *range(0xE0000, 0xF0000)):  # of the other planes no character has a meaning
        match category(chr(code))[0]:
            case "L" | "M":
                found[code] = LETTER
            case "N":
                found[code] = DIGIT
            case "Z":
                found[code] = SPACE
            case _ if chr(code).isspace():
                found[code] = SPACE
    for first, last in WITHOUT_SPACES:
        found[first : last + 1] = np.where(found[first : last + 1] & (LETTER | DIGIT), LETTER | SOLO, 0)
    found[0x3005], found[0x30FC] = LETTER | SOLO, LETTER | SOLO
    return found


@dataclass(frozen=True)
class Words:
    """Tokens in their order. Lengths are in characters."""

    codes: Codes  # of the text, case folded, full-width forms as ASCII
    kinds: NDArray[np.uint8]  # of each character
    starts: Positions
    ends: Positions
    solo: Mask  # of each token: a character of a script without spaces

    @cached_property
    def hashes(self) -> Hashes:
        """Of each token."""
        return _hashes(self.codes, self.starts, self.ends)

    @property
    def count(self) -> float:
        """Words: two characters of a script without spaces are one."""
        solo = int(self.solo.sum())
        return len(self.solo) - solo + solo / CHARACTERS_PER_WORD

    @property
    def without_spaces(self) -> bool:
        """Whether most of the text is in a script without spaces."""
        solo = int(self.solo.sum())
        return solo / CHARACTERS_PER_WORD > len(self.solo) - solo

    def tokens(self, words: int) -> int:
        """Of an n-gram that is so many words long."""
        return words * CHARACTERS_PER_WORD if self.without_spaces else words

    def ngrams(self, tokens: int) -> Hashes:
        """A hash of each run of so many tokens; of a shorter text there is none."""
        return runs(self.hashes, tokens)


def words_of(text: str) -> Words:
    codes = _codes(text)
    kinds = _classes()[codes]
    solo = (kinds & SOLO) != 0
    inside = (kinds & (LETTER | DIGIT)) != 0
    before, after = np.zeros_like(inside), np.zeros_like(inside)
    joined = inside[1:] & inside[:-1] & ~solo[1:] & ~solo[:-1]  # with the character before
    before[1:], after[:-1] = joined, joined
    starts, ends = np.flatnonzero(inside & ~before), np.flatnonzero(inside & ~after) + 1
    return Words(codes, kinds, starts, ends, solo[starts])


def letters_in(text: str) -> int:
    return int(np.count_nonzero(_classes()[_codes(text)] & LETTER))


def _codes(text: str) -> Codes:
    """Case folded, full-width forms as ASCII."""
    codes = np.frombuffer(text.casefold().encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint32)
    wide = (codes >= 0xFF01) & (codes <= 0xFF5E)
    if wide.any():
        codes = np.where(wide, codes - 0xFEE0, codes)
        small = wide & (codes >= ord("A")) & (codes <= ord("Z"))
        codes = np.where(small, codes + 32, codes)
    return codes


def _hashes(codes: Codes, starts: Positions, ends: Positions) -> Hashes:
    """Of each token, by prefix sums of a polynomial modulo 2^64: the same on every machine."""
    if not len(codes):
        return np.zeros(0, dtype=np.uint64)
    sums = np.concatenate(
        [np.zeros(1, np.uint64), np.cumsum(mix(codes.astype(np.uint64)) * _powers(_BASE, len(codes)))]
    )
    return mix((sums[ends] - sums[starts]) * _powers(_INVERSE, len(codes))[starts])


def runs(hashes: Hashes, tokens: int) -> Hashes:
    """A hash of each run of so many tokens."""
    return Ngrams(hashes).of(tokens)


class Ngrams:
    """Hashes of runs of more and more tokens, each length made from the one before."""

    def __init__(self, hashes: Hashes) -> None:
        self._hashes, self._tokens = hashes, 0
        self._found = np.zeros(len(hashes) + 1, dtype=np.uint64)

    def of(self, tokens: int) -> Hashes:
        """As many as before or more."""
        number = max(0, len(self._hashes) - tokens + 1)
        found = self._found[:number]
        for offset in range(self._tokens, tokens):
            found = found * np.uint64(_BASE) + self._hashes[offset : offset + number]
        self._found, self._tokens = found, tokens
        return mix(found)


_known: dict[int, Hashes] = {}


def _powers(base: int, length: int) -> Hashes:
    """base^0, base^1 ... modulo 2^64; those of short texts are kept."""
    known = _known.get(base)
    if known is None or len(known) < length:
        known = np.full(max(length, 1 << 16), base, dtype=np.uint64)
        known[0] = 1
        known = np.cumprod(known, dtype=np.uint64)
        if len(known) <= 1 << 20:
            _known[base] = known
    return known[:length]


def mix(numbers: Hashes) -> Hashes:
    """SplitMix64's finaliser (Steele et al. 2014): every bit of the input changes half of the output."""
    mixed = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
