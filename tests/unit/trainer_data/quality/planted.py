"""Documents with planted near duplicates, in two languages, from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

NGRAM = 5
_LENGTHS = {"en": (80, 400), "ja": (40, 150)}  # words
_SYLLABLES = (
    "ka",
    "ta",
    "ri",
    "mo",
    "ne",
    "su",
    "lo",
    "ve",
    "da",
    "shi",
    "tor",
    "pen",
    "gal",
    "wis",
    "bra",
    "cor",
    "min",
)
_KANA = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわをん"
_KANJI = "".join(chr(0x4E00 + 7 * number) for number in range(600))


@dataclass(frozen=True)
class Planted:
    """`copies` has for each edited copy its number, that of its original and their Jaccard similarity."""

    texts: list[str]
    copies: list[tuple[int, int, float]]


def grams(units: list[str]) -> set[tuple[str, ...]]:
    """Apart from the code under test, by tuples of strings."""
    return {tuple(units[start : start + NGRAM]) for start in range(len(units) - NGRAM + 1)}


def similarity(one: list[str], other: list[str]) -> float:
    first, second = grams(one), grams(other)
    return len(first & second) / len(first | second)


def planted(language: str, documents: int, seed: int, share: float = 0.2) -> Planted:
    """So many documents, of which `share` are copies with edits that leave a Jaccard similarity of 0.5 to 1."""
    chance = random.Random(seed)
    vocabulary = _words(language, chance)
    weights = [1 / (rank + 10) for rank in range(len(vocabulary))]
    originals = [
        chance.choices(vocabulary, weights, k=chance.randint(*_LENGTHS[language]))
        for _ in range(round(documents * (1 - share)))
    ]
    units = [list("".join(words)) if language == "ja" else words for words in originals]
    texts, copies = [_written(language, each, chance) for each in units], []
    for _ in range(documents - len(originals)):
        original = chance.randrange(len(originals))
        made, value = _copy(units[original], chance.uniform(0.5, 1.0), vocabulary, language, chance)
        copies.append((len(texts), original, value))
        texts.append(_written(language, made, chance))
    return Planted(texts, copies)


def _copy(
    units: list[str], wanted: float, vocabulary: list[str], language: str, chance: random.Random
) -> tuple[list[str], float]:
    """Edits at random places, until the next one would leave less than is wanted."""
    made, value = list(units), 1.0
    while True:
        tried, at = list(made), chance.randrange(len(made))
        other = chance.choice(chance.choice(vocabulary)) if language == "ja" else chance.choice(vocabulary)
        match chance.randrange(3):
            case 0:
                tried[at] = other
            case 1:
                tried.insert(at, other)
            case _:
                del tried[at]
        left = similarity(units, tried)
        if left < wanted:
            return made, value
        made, value = tried, left


def _words(language: str, chance: random.Random) -> list[str]:
    if language == "ja":
        return ["".join(chance.choices(_KANJI, k=2)) + chance.choice(_KANA) for _ in range(800)] + list(_KANA) * 3
    return ["".join(chance.choices(_SYLLABLES, k=chance.randint(1, 4))) for _ in range(2000)]


def _written(language: str, units: list[str], chance: random.Random) -> str:
    """As prose: marks and lines that comparison doesn't see."""
    parts: list[str] = []
    for unit in units:
        parts.append(unit)
        if chance.random() < 0.07:
            parts.append("。" if language == "ja" else ".")
    return "".join(parts) if language == "ja" else " ".join(parts).replace(" .", ".")
