"""A revision in Chroma, which is searched there: pods hold no documents, and of words those that were asked for."""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from llm_app.away import StoreError
from llm_app.chroma import METADATA, SEARCH_SECONDS, WORDS, Chroma, Place, chosen, connected, revision_in
from llm_app.chroma_index import bucket_of
from llm_app.config import Knowledge
from llm_app.keyword import Hit
from llm_app.prompt import Passage
from llm_app.revision import Revision
from llm_app.store import StoredChunk
from llm_app.vectors import Array
from llm_app.words import words

KEPT_WORDS, KEPT_POSTINGS = 20_000, 2_000_000  # in memory, of 8 bytes each
CHOICES = 16  # of metadata, the last that were asked for, whose chunks are kept
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Postings:
    """What a word gives to the chunks that have it."""

    chunks: Numbers
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, told: str) -> Self:
        raw = base64.b64decode(told)
        half = len(raw) // 2
        chunks, weights = np.frombuffer(raw[:half], dtype="<u4"), np.frombuffer(raw[half:], dtype="<f4")
        return cls(chunks.astype(np.int64), weights.astype(np.float64))


class InChroma:
    """A revision that is searched where it is (retrieval.Backend)."""

    def __init__(self, chroma: Chroma, revision: Revision, holder: Mapping[str, Any], listed: str) -> None:
        self._chroma, self._revision = chroma, revision
        self._chunks, self._listed = holder["id"], listed
        self._buckets = int(holder["metadata"]["buckets"])
        self._words: OrderedDict[str, Postings] = OrderedDict()
        self._chosen: OrderedDict[tuple[tuple[str, str], ...], Numbers] = OrderedDict()

    @classmethod
    @asynccontextmanager
    async def opened(cls, settings: Knowledge) -> AsyncIterator[Self]:
        """Raises StoreError."""
        place = Place.of(settings, settings.name)
        async with connected(place, SEARCH_SECONDS) as chroma:
            await chroma.check()
            own = await chroma.collection(place.collection_of(settings.revision))
            said = f"Chroma has no revision {settings.revision} of {settings.name}"
            absent = StoreError(f"{said}; delete the Job that made it, and it is made anew", passes=False)
            if own is None:
                raise absent
            revision = revision_in(own)
            holder = own if revision.holder == own["name"] else await chroma.collection(revision.holder)
            listed = holder and await chroma.collection(str(holder["metadata"].get(WORDS)))
            if not holder or not listed:
                raise absent
            yield cls(chroma, revision, holder, listed["id"])

    @property
    def chunks(self) -> int:
        return self._revision.chunks

    @property
    def made(self) -> float:
        return self._revision.made

    @property
    def probe(self) -> Array | None:
        return self._revision.probe

    async def by_words(self, question: str, most: int, minimum: float, where: Mapping[str, str]) -> list[Hit]:
        found = await self._postings([*dict.fromkeys(words(question))])
        if not found:
            return []
        chunks = np.concatenate([one.chunks for one in found])
        scores = np.bincount(chunks, np.concatenate([one.weights for one in found]))
        numbers = np.unique(chunks)
        if where:
            numbers = np.intersect1d(numbers, await self._allowed(where))
        best = numbers[np.lexsort((numbers, -scores[numbers]))][:most]
        return [(int(number), float(scores[number])) for number in best if scores[number] >= minimum]

    async def _postings(self, asked: Sequence[str]) -> list[Postings]:
        """Of words that some chunk has, in their order. A revision never changes, so what was read stays true."""
        known = {word: self._words[word] for word in asked if word in self._words}
        absent = [word for word in asked if word not in known]
        if absent:
            numbers = sorted({bucket_of(word, self._buckets) for word in absent})
            body = {"ids": [*map(str, numbers)], "include": ["metadatas"]}
            told = await self._chroma.ask("POST", f"/collections/{self._listed}/get", body)
            listed = {word: text for one in told["metadatas"] for word, text in json.loads(one[WORDS]).items()}
            known |= {word: Postings.of(listed.get(word, "")) for word in absent}
            self._keep({word: known[word] for word in absent})
        for word in asked:
            if word in self._words:
                self._words.move_to_end(word)
        return [known[word] for word in asked if len(known[word].chunks)]

    def _keep(self, read: Mapping[str, Postings]) -> None:
        self._words.update(read)
        held = sum(len(one.chunks) for one in self._words.values())
        while self._words and (held > KEPT_POSTINGS or len(self._words) > KEPT_WORDS):
            held -= len(self._words.popitem(last=False)[1].chunks)

    async def _allowed(self, where: Mapping[str, str]) -> Numbers:
        """Clients may ask for any: the last ones are kept, not the first."""
        key = tuple(sorted(where.items()))
        if key not in self._chosen:
            body = {**chosen(where), "include": []}
            told = await self._chroma.ask("POST", f"/collections/{self._chunks}/get", body)
            self._chosen[key] = np.asarray([int(one) for one in told["ids"]], dtype=np.int64)
        self._chosen.move_to_end(key)
        found = self._chosen[key]
        if len(self._chosen) > CHOICES:
            self._chosen.popitem(last=False)
        return found

    async def by_meaning(self, question: Array, most: int, minimum: float, where: Mapping[str, str]) -> list[Hit]:
        body = {"query_embeddings": [question.tolist()], "n_results": most, "include": ["distances"], **chosen(where)}
        told = await self._chroma.ask("POST", f"/collections/{self._chunks}/query", body)
        hits = [(int(one), 1.0 - far) for one, far in zip(told["ids"][0], told["distances"][0], strict=True)]
        return [(number, score) for number, score in hits if score >= minimum]

    async def passages(self, hits: Sequence[Hit]) -> list[Passage]:
        if not hits:
            return []
        body = {"ids": [str(number) for number, _ in hits], "include": ["documents", "metadatas"]}
        told = await self._chroma.ask("POST", f"/collections/{self._chunks}/get", body)
        rows = {
            int(one): (text, metadata)
            for one, text, metadata in zip(told["ids"], told["documents"], told["metadatas"], strict=True)
        }
        return [self._passage(*rows[number], score) for number, score in hits if number in rows]

    def _passage(self, text: str, told: Mapping[str, str], score: float) -> Passage:
        own = {key.removeprefix(METADATA): value for key, value in told.items() if key.startswith(METADATA)}
        chunk = StoredChunk(told["source"], told["title"], told["heading"], text, own)
        return chunk.passage(self._chroma.place.knowledge, self._revision.name, score)
