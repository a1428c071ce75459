"""Finds passages of several knowledge bases: by words, by meaning, or by both."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Protocol

from llm_app.away import StoreError
from llm_app.config import Knowledge, Mode
from llm_app.figures import Figures
from llm_app.keyword import Hit
from llm_app.prompt import Passage, document, tokens
from llm_app.store import Index

if TYPE_CHECKING:
    from llm_app.embedding import Embedder
    from llm_app.vectors import Array, Vectors

SEARCHED = 8192  # characters of a message, by which documents are looked for: more words find everything
RANK = 60  # of reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009)
DEEPER = 5  # each half of a hybrid search finds so many times what is wanted
CHOICES = 16  # of metadata, the last that were asked for: which chunks have it is looked for once, a byte a chunk


@dataclass(frozen=True)
class Found:
    """``problems``: why some knowledge was searched less well than wanted, each beginning with its name."""

    passages: list[Passage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    mode: Mode = "keyword"  # how it was searched: of another the scores are another measure


class Backend(Protocol):
    """An index, wherever it is kept. Each raises StoreError."""

    @property
    def made(self) -> float:
        """When it was made, in seconds since the epoch."""

    @property
    def probe(self) -> Array | None:
        """The vector that the model of the index gave to embedding.PROBE; None: it has none."""

    async def by_words(self, question: str, most: int, minimum: float, where: Mapping[str, str]) -> list[Hit]:
        """Best first."""

    async def by_meaning(self, question: Array, most: int, minimum: float, where: Mapping[str, str]) -> list[Hit]:
        """Best first."""

    async def passages(self, hits: Sequence[Hit]) -> list[Passage]:
        """In the order of the hits."""


class InFolder:
    """An index that is in memory. In a thread: nobody's answer may stand still while one is looked for."""

    def __init__(self, index: Index, made: float) -> None:
        self.index, self.made = index, made
        self._allowed = lru_cache(CHOICES)(lambda where: index.allowed(dict(where)))

    @property
    def probe(self) -> Array | None:
        return self.index.vectors.probe if self.index.vectors else None

    async def by_words(self, question: str, most: int, minimum: float, where: Mapping[str, str]) -> list[Hit]:
        return await asyncio.to_thread(self._words, question, most, minimum, where)

    async def by_meaning(self, question: Array, most: int, minimum: float, where: Mapping[str, str]) -> list[Hit]:
        vectors = self.index.vectors
        if vectors is None:
            raise StoreError("the index has no vectors")
        return await asyncio.to_thread(self._meaning, vectors, question, most, minimum, where)

    def _words(self, question: str, most: int, minimum: float, where: Mapping[str, str]) -> list[Hit]:
        return self.index.keywords.search(question, most, minimum, self._allowed(frozenset(where.items())))

    def _meaning(
        self, vectors: Vectors, question: Array, most: int, minimum: float, where: Mapping[str, str]
    ) -> list[Hit]:
        return vectors.search(question, most, minimum, self._allowed(frozenset(where.items())))

    async def passages(self, hits: Sequence[Hit]) -> list[Passage]:
        return self.index.passages(hits)


@dataclass(frozen=True)
class Base:
    """One knowledge base that a server has opened."""

    settings: Knowledge
    backend: Backend
    embedder: Embedder | None = None

    @property
    def mode(self) -> Mode:
        return self.settings.retrieval.mode or ("hybrid" if self.embedder else "keyword")


class Retriever:
    """All of a server's knowledge."""

    def __init__(self, bases: Sequence[Base], figures: Figures) -> None:
        self._bases, self._figures = tuple(bases), figures

    @property
    def names(self) -> list[str]:
        return [base.settings.name for base in self._bases]

    async def search(
        self, question: str, names: Sequence[str] = (), most: int | None = None, where: Mapping[str, str] | None = None
    ) -> Found:
        """The best of all, best first. ``names``: of these alone. ``where`` stands beside each base's own.

        Raises StoreError: an answer that leaves out a whole knowledge base would be none.
        """
        began = time.perf_counter()
        wanted = [base for base in self._bases if not names or base.settings.name in names]
        found = await asyncio.gather(*(self._one(base, question[:SEARCHED], most, where or {}) for base in wanted))
        self._figures.retrieval.observe(time.perf_counter() - began)
        passages = merged([one.passages for one in found], {one.mode for one in found if one.passages})
        return Found(passages, [problem for one in found for problem in one.problems])

    async def _one(self, base: Base, question: str, most: int | None, where: Mapping[str, str]) -> Found:
        settings = base.settings.retrieval
        most = most or settings.top_k
        if any(settings.where.get(key, value) != value for key, value in where.items()):
            return Found()  # a request can't reach what its app leaves out
        chosen = {**where, **settings.where}
        problems: list[str] = []
        hits, mode = await self._hits(base, question, most, chosen, problems)
        passages = await base.backend.passages(hits[:most])
        if problems:
            self._figures.searched_less.labels(base.settings.name).inc()
        told = [f"{base.settings.name}: {one}" for one in problems]
        return Found(within(passages, settings.max_tokens), told, mode)

    async def _hits(
        self, base: Base, question: str, most: int, where: Mapping[str, str], problems: list[str]
    ) -> tuple[list[Hit], Mode]:
        """And how they were found: by words alone where the embedding server is away."""
        settings, mode = base.settings.retrieval, base.mode
        deep = most if mode != "hybrid" else most * DEEPER
        vector = None if mode == "keyword" else await self._vector(base, question, problems)
        if vector is None:
            return await base.backend.by_words(question, most, settings.minimum_score, where), "keyword"
        near = base.backend.by_meaning(vector, deep, settings.minimum_similarity, where)
        if mode == "dense":
            return await near, mode
        words = base.backend.by_words(question, deep, settings.minimum_score, where)
        return fused(*await asyncio.gather(near, words)), mode

    async def _vector(self, base: Base, question: str, problems: list[str]) -> Array | None:
        """None where it can't be had, with the cause: an answer by words is better than none."""
        from llm_app.embedding import EmbeddingError

        probe = base.backend.probe
        if base.embedder is None or probe is None:
            problems.append("found by words alone: its index has no vectors")
            return None
        began = time.perf_counter()
        try:
            return await base.embedder.question(question, probe)
        except EmbeddingError as error:
            problems.append(f"found by words alone: {error}")
            return None
        finally:
            self._figures.embedding.observe(time.perf_counter() - began)


def fused(*rankings: Sequence[Hit]) -> list[Hit]:
    """By reciprocal ranks: scores of words and of meanings have no common measure."""
    scores: dict[int, float] = defaultdict(float)
    for ranking in rankings:
        for rank, (number, _) in enumerate(ranking, 1):
            scores[number] += 1 / (RANK + rank)
    return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))


def merged(found: Sequence[Sequence[Passage]], modes: set[Any]) -> list[Passage]:
    """By their scores where these are of one measure (hybrid ones are of ranks), else each base's best in turn."""
    if len(modes) <= 1:
        return sorted((passage for one in found for passage in one), key=lambda passage: -passage.score)
    return [passage for row in zip_longest(*found) for passage in row if passage is not None]


def within(passages: Sequence[Passage], most: int | None) -> list[Passage]:
    """The best ones, of so many tokens in all; a weaker one never takes the place of a better one."""
    return list(passages) if most is None else list(fitting(passages, most))


def fitting(passages: Sequence[Passage], most: int) -> Iterator[Passage]:
    for number, passage in enumerate(passages, 1):
        most -= tokens(document(number, passage))
        if most < 0:
            return
        yield passage
