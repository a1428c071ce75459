"""Finds chunks by their words: BM25 (Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009).

Of the standard library alone: the operator renders prompts by it too, and its image has no numpy. What a word gives to
a chunk is worked out when the index is made, so that a question costs an addition for each chunk that has its words.
"""

from __future__ import annotations

import json
import math
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from typing import Self

from llm_app.words import words

K1, B = 1.2, 0.75  # as in Lucene
VOCABULARY, CHUNKS, WEIGHTS = "words.json", "chunks.u32", "weights.f32"
Hit = tuple[int, float]  # a chunk's number and its score


@dataclass(frozen=True)
class Keywords:
    """``spans``: of each word, where its chunks and their weights begin and end."""

    spans: dict[str, tuple[int, int]]
    chunks: array[int]
    weights: array[float]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """In the order of the texts, by which chunks are known."""
        lengths: list[int] = []
        postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for number, text in enumerate(texts):
            counts = Counter(words(text))
            lengths.append(counts.total())
            for word, count in counts.items():
                postings[word].append((number, count))
        mean = (sum(lengths) / len(lengths) if lengths else 0) or 1.0
        spans: dict[str, tuple[int, int]] = {}
        chunks, weights = array("I"), array("f")
        for word in sorted(postings):
            found = postings.pop(word)
            rarity = math.log(1 + (len(lengths) - len(found) + 0.5) / (len(found) + 0.5))
            spans[word] = (len(chunks), len(chunks) + len(found))
            for number, count in found:
                chunks.append(number)
                weights.append(rarity * count * (K1 + 1) / (count + K1 * (1 - B + B * lengths[number] / mean)))
        return cls(spans, chunks, weights)

    def search(self, question: str, most: int, minimum: float = 0.0, allowed: bytes | None = None) -> list[Hit]:
        """Best first; a chunk that shares no word is never among them. ``allowed``: 1 for each chunk that may be."""
        scores: dict[int, float] = defaultdict(float)
        for word in dict.fromkeys(words(question)):
            start, end = self.spans.get(word, (0, 0))
            for at in range(start, end):
                scores[self.chunks[at]] += self.weights[at]
        found = scores.items() if allowed is None else [one for one in scores.items() if allowed[one[0]]]
        best = nlargest(most, found, key=lambda one: (one[1], -one[0]))
        return [(number, score) for number, score in best if score >= minimum]

    def save(self, folder: Path) -> None:
        listed = [[word, *span] for word, span in self.spans.items()]
        (folder / VOCABULARY).write_text(json.dumps(listed, ensure_ascii=False), encoding="utf-8")
        for name, values in ((CHUNKS, self.chunks), (WEIGHTS, self.weights)):
            (folder / name).write_bytes(little_endian(values).tobytes())

    @classmethod
    def load(cls, folder: Path) -> Self:
        listed = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
        chunks, weights = array("I"), array("f")
        chunks.frombytes((folder / CHUNKS).read_bytes())
        weights.frombytes((folder / WEIGHTS).read_bytes())
        spans = {str(word): (int(start), int(end)) for word, start, end in listed}
        return cls(spans, little_endian(chunks), little_endian(weights))


def little_endian(values: array[int] | array[float]) -> array:  # type: ignore[type-arg]
    """As files have it: the machine that made an index may be of another kind."""
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values
