"""Makes an index in Chroma: each revision is a collection of its own, which is whole when it gets its name.

Chroma compares vectors and knows no BM25. So the words stand in a second collection, with the weights that keyword.py
has worked out: many words to a record, as a record of each word would cost more than what it says.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np

from llm_app.away import StoreError
from llm_app.chroma import (
    KNOWLEDGE,
    METADATA,
    NOT_OURS,
    OWNER,
    REVISION,
    WORDS,
    WRITE_SECONDS,
    Chroma,
    Place,
    connected,
    revision_in,
    sent,
    told_of,
)
from llm_app.config import IndexConfig
from llm_app.keyword import Keywords, little_endian
from llm_app.revision import Revision
from llm_app.store import Index
from llm_app.vectors import DIGEST_BYTES, Array, Vectors

BATCH, BATCH_BYTES = 256, 4 << 20  # of a request
READ = 1000  # vectors of a request
POSTINGS = 2048  # of a record of words, about
NEAR = {"hnsw": {"space": "ip", "ef_construction": 200, "ef_search": 256, "max_neighbors": 32}}
UNSEARCHED = base64.b64encode(np.ones(1, dtype="<f4").tobytes()).decode()  # of records that have no vector


class InChroma:
    """revision.Store of one index Job."""

    def __init__(self, place: Place, config: IndexConfig) -> None:
        self._place, self._config = place, config

    @classmethod
    def of(cls, config: IndexConfig) -> Self:
        return cls(Place.of(config, config.knowledge), config)

    def holder_of(self, revision: str) -> str:
        return self._place.collection_of(revision)

    async def prepared(self) -> Revision | None:
        async with connected(self._place, WRITE_SECONDS) as chroma:
            await chroma.check()
            return await chroma.revision(self._config.revision)

    async def revision_of(self, name: str) -> Revision | None:
        async with connected(self._place, WRITE_SECONDS) as chroma:
            return await chroma.revision(name)

    async def vectors_of(self, used: Revision) -> Vectors | None:
        if used.probe is None:
            return None
        rows: list[Array] = []
        digests: list[bytes] = []
        async with connected(self._place, WRITE_SECONDS) as chroma:
            found = await chroma.collection(used.holder)
            while found and len(rows) < used.chunks:
                asked = {"limit": READ, "offset": len(rows), "include": ["embeddings", "metadatas"]}
                page = await chroma.ask("POST", f"/collections/{found['id']}/get", asked)
                if not page["ids"]:
                    break
                rows += [np.asarray(row, dtype=np.float32) for row in page["embeddings"]]
                digests += [bytes.fromhex(one["digest"]) for one in page["metadatas"]]
        assert all(len(one) == DIGEST_BYTES for one in digests)  # noqa: S101 -- as they were written
        return Vectors(np.stack(rows), tuple(digests), used.probe) if rows else None

    async def placed(self, built: Index) -> Revision:
        probe = built.vectors.probe if built.vectors else None
        made = self._named(built.documents, len(built.chunks), built.content, built.space, probe)
        async with connected(self._place, WRITE_SECONDS) as chroma:
            own = f"{made.holder}-{uuid.uuid4().hex[:8]}"
            listed = list(buckets(built.keywords))
            words = await self._filled(chroma, f"{own}-{WORDS}", {REVISION: made.name}, word_records(listed))
            told = {**told_of(made), WORDS: words["name"], "buckets": len(listed)}
            chunks = await self._filled(chroma, own, {REVISION: made.name}, chunk_records(built))
            await self._checked(chroma, chunks, len(built.chunks))
            return await self._appears(chroma, chunks, told)

    async def placed_same(self, used: Revision) -> Revision:
        made = self._named(used.documents, used.chunks, used.content, used.space, used.probe)
        async with connected(self._place, WRITE_SECONDS) as chroma:
            if await chroma.collection(used.holder) is None:
                raise StoreError(f"revision {used.name} has gone from Chroma in between")
            empty = await self._filled(chroma, f"{made.holder}-{uuid.uuid4().hex[:8]}", {REVISION: made.name}, ())
            return await self._appears(chroma, empty, {**told_of(made), "holder": used.holder})

    async def remove_others(self, kept: set[str]) -> None:
        """Revisions that nobody uses, and what killed pods have left, but for what another revision leads to."""
        async with connected(self._place, WRITE_SECONDS) as chroma:
            there = [one async for one in chroma.collections()]
            whole = {one["name"]: one for one in there if one["name"] == self.holder_of(revision_of(one))}
            stay = {self.holder_of(one) for one in kept}
            stay |= {str(holder) for name in stay & {*whole} if (holder := whole[name]["metadata"].get("holder"))}
            stay |= {str(words) for name in stay & {*whole} if (words := whole[name]["metadata"].get(WORDS))}
            running = kept - {self._config.revision}  # another Job may be writing them
            for one in there:
                unfinished = one["name"] not in whole and revision_of(one) in running
                if one["name"] not in stay and not unfinished:
                    await chroma.ask("DELETE", f"/collections/{one['name']}", absent=True)

    def _named(self, documents: int, chunks: int, content: str, space: str, probe: Array | None) -> Revision:
        name = self._config.revision
        return Revision(name, self.holder_of(name), documents, chunks, content, space, probe, time.time())

    async def _filled(
        self, chroma: Chroma, name: str, told: dict[str, Any], records: Iterator[dict[str, Any]] | tuple[()]
    ) -> dict[str, Any]:
        """A new collection, under a name that nobody asks for."""
        metadata = {**told, OWNER: self._place.owner, KNOWLEDGE: self._place.knowledge}
        body = {"name": name, "metadata": metadata, "configuration": NEAR}
        made: dict[str, Any] = await chroma.ask("POST", "/collections", body)
        for batch in batches(records):
            columns = {f"{field}s": [one[field] for one in batch] for field in batch[0]}
            await chroma.ask("POST", f"/collections/{made['id']}/add", columns)
        return made

    async def _checked(self, chroma: Chroma, collection: dict[str, Any], chunks: int) -> None:
        """That it has as much as was put there."""
        count = await chroma.ask("GET", f"/collections/{collection['id']}/count")
        if count != chunks:
            raise StoreError(f"Chroma has {count} chunks of {chunks} that were written")

    async def _appears(self, chroma: Chroma, collection: dict[str, Any], told: dict[str, Any]) -> Revision:
        """One request gives it its name and its figures. It fails where another pod was faster."""
        name = self.holder_of(self._config.revision)
        metadata = {**told, OWNER: self._place.owner, KNOWLEDGE: self._place.knowledge}
        try:
            await chroma.ask("PUT", f"/collections/{collection['id']}", {"new_name": name, "new_metadata": metadata})
        except StoreError:
            if there := await chroma.revision(self._config.revision):
                return there
            raise
        found = await chroma.collection(name)
        if found is None:
            raise StoreError(f"collection {name} of Chroma {NOT_OURS}", passes=False)
        return revision_in(found)


def revision_of(collection: dict[str, Any]) -> str:
    """By its metadata, which anybody may have changed."""
    return str(collection["metadata"].get(REVISION))


def batches(records: Iterator[dict[str, Any]] | tuple[()]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for one in records:
        batch.append(one)
        size += len(one["document"] or "") + len(one["embedding"]) + sum(map(len, one["metadata"].values()))
        if len(batch) == BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def chunk_records(built: Index) -> Iterator[dict[str, Any]]:
    """Columns are in the plural where they are sent."""
    vectors = built.vectors
    for number, chunk in enumerate(built.chunks):
        metadata = {"source": chunk.source, "title": chunk.title, "heading": chunk.heading}
        metadata |= {f"{METADATA}{key}": value for key, value in chunk.metadata.items()}
        if vectors:
            metadata["digest"] = vectors.digests[number].hex()
        embedding = sent(vectors.matrix[number : number + 1])[0] if vectors else UNSEARCHED
        yield {"id": str(number), "document": chunk.text, "metadata": metadata, "embedding": embedding}


def buckets(keywords: Keywords) -> Sequence[dict[str, str]]:
    """Words with what they give to chunks, each in the bucket that its letters tell."""
    made: list[dict[str, str]] = [{} for _ in range(max(1, len(keywords.chunks) // POSTINGS))]
    for word, (start, end) in keywords.spans.items():
        chunks, weights = keywords.chunks[start:end], keywords.weights[start:end]
        raw = little_endian(chunks).tobytes() + little_endian(weights).tobytes()
        made[bucket_of(word, len(made))][word] = base64.b64encode(raw).decode()
    return made


def bucket_of(word: str, count: int) -> int:
    return zlib.crc32(word.encode()) % count


def word_records(listed: Sequence[dict[str, str]]) -> Iterator[dict[str, Any]]:
    """In the metadata: Chroma would index a document by its letters."""
    for number, words in enumerate(listed):
        metadata = {WORDS: json.dumps(words, ensure_ascii=False)}
        yield {"id": str(number), "document": None, "metadata": metadata, "embedding": UNSEARCHED}
