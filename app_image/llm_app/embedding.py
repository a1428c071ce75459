"""Asks a served embedding model, in OpenAI's API: of documents in batches that are tried again, of a question once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from llm_app.away import AwayError
from llm_app.config import EMBEDDING_API_KEY, EMBEDDINGS, Embedding, of_knowledge
from llm_app.connection import Connection
from llm_app.vectors import DIGEST_BYTES, STORED, Array, same_model, unit

PROBE = "The pump is oiled every forty hours. ポンプは四十時間ごとに給油する。"
BATCH, AT_ONCE = 32, 4  # texts of a request, requests at the same time
TRIES, FIRST_WAIT = 8, 1.0  # of a batch: two minutes in all, in which a pod of the server is replaced
QUESTION_SECONDS = 10.0
BATCH_SECONDS = 300.0  # on CPU
PROGRESS_SECONDS = 10.0
Tell = Callable[[str], None]
Keep = Callable[[Sequence[str], Array], None]


class EmbeddingError(AwayError):
    """Of an embedding server."""


class Embedder(Connection):
    """Asks for vectors, by the key and the certificate of its knowledge base."""

    def __init__(
        self,
        settings: Embedding,
        knowledge: str,
        environment: Mapping[str, str] = os.environ,
        certificates: Path = Path(EMBEDDINGS),
    ) -> None:
        key = environment.get(of_knowledge(EMBEDDING_API_KEY, knowledge), "")
        super().__init__(key, certificates / knowledge / "ca.crt", aiohttp.ClientTimeout(total=BATCH_SECONDS))
        self.settings = settings

    async def question(self, text: str, probe: Array) -> Array:
        """Its vector. Raises EmbeddingError, also where another model is served than that of the index.

        The probe goes with each question: between a look and a question the model may change.
        """
        asked = [self.settings.query_prefix + text, self.settings.document_prefix + PROBE]
        rows = await self._ask(asked, QUESTION_SECONDS, truncate=True)
        vector: Array = rows[0]
        probed: Array = rows[1]
        if not same_model(probed, probe):
            raise EmbeddingError("another embedding model is served than that of the index", passes=True)
        return vector

    async def documents(self, texts: Sequence[str], tell: Tell = print, keep: Keep | None = None) -> Array:
        """A row for each, in their order. ``keep`` gets those of each batch as they come. Raises EmbeddingError."""
        made: list[Array | None] = [None] * len(texts)
        progress = Progress(len(texts), tell)
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(start: int) -> None:
            async with gate:
                batch = texts[start : start + BATCH]
                rows = await self._tried([self.settings.document_prefix + text for text in batch], tell)
                for at, row in enumerate(rows, start):
                    made[at] = row
                if keep:
                    keep(batch, rows)
                progress.add(len(batch))

        try:
            async with asyncio.TaskGroup() as group:
                for start in range(0, len(texts), BATCH):
                    group.create_task(one(start))
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        found = [vector for vector in made if vector is not None]
        if len({len(vector) for vector in found}) > 1:
            raise EmbeddingError("the embedding model gave vectors of several lengths", passes=False)
        return np.stack(found) if found else np.empty((0, 0), dtype=np.float32)

    async def _tried(self, batch: Sequence[str], tell: Tell) -> Array:
        wait = FIRST_WAIT
        for left in reversed(range(TRIES)):
            try:
                return await self._ask(batch, BATCH_SECONDS)
            except EmbeddingError as error:
                if not error.passes or not left:
                    raise
                tell(f"it is tried again in {wait:.0f} s: {error}")
            await asyncio.sleep(wait)
            wait = min(2 * wait, 30.0)
        raise AssertionError("the last try raises")

    async def _ask(self, texts: Sequence[str], seconds: float, *, truncate: bool = False) -> Array:
        body: dict[str, Any] = {"model": self.settings.name, "input": [*texts], "encoding_format": "base64"}
        if truncate:  # a question's end may be lost; of a document nothing is
            body["truncate_prompt_tokens"] = -1
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session.post(f"{self.settings.url}/embeddings", json=body, timeout=timeout) as response:
                if response.status != 200:
                    raise refused(response.status, await response.text(), len(texts))
                return vectors_of(await response.json(), len(texts))
        except TimeoutError:
            raise EmbeddingError(f"the embedding server says nothing in {seconds:.0f} s", passes=True) from None
        except aiohttp.ClientError as error:
            said = f"the embedding server can't be reached ({type(error).__name__})"
            raise EmbeddingError(said, passes=True) from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise EmbeddingError(f"the embedding server's answer is none: {error}", passes=False) from None


class Progress:
    """Told now and then."""

    def __init__(self, total: int, tell: Tell) -> None:
        self._total, self._done, self._tell = total, 0, tell
        self._began = self._told = time.monotonic()

    def add(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS or self._done == self._total:
            self._told = now
            rate = self._done / max(now - self._began, 1e-3)
            self._tell(f"embedded {self._done:,} of {self._total:,} chunks, {rate:,.0f} a second")


def vectors_of(answer: Mapping[str, Any], count: int) -> Array:
    """Raises ValueError, KeyError or TypeError for what is no answer to ``count`` texts."""
    rows: list[Array | None] = [None] * count
    for one in answer["data"]:
        rows[one["index"]] = vector_of(one["embedding"])
    found = [row for row in rows if row is not None]
    if len(found) != count:
        raise ValueError(f"{len(found)} vectors for {count} texts")
    return unit(np.stack(found))


def vector_of(told: object) -> Array:
    """Base64 of 32-bit numbers, or numbers from a server that knows no base64."""
    if isinstance(told, str):
        return np.frombuffer(base64.b64decode(told, validate=True), dtype=STORED)
    return np.asarray(told, dtype=np.float32)


def refused(status: int, body: str, count: int) -> EmbeddingError:
    said = body[:500]
    if status in (400, 413, 422):
        why = f"the embedding model does not take one of {count} chunks: {said}; if it is too long, lower chunking.size"
        return EmbeddingError(why, passes=False)
    if status == 401:
        return EmbeddingError("the embedding server does not take the key that the app has", passes=True)
    if status == 404:
        said = "the embedding server does not embed, or does not know the model; spec.task of its LLMServing is embed?"
        return EmbeddingError(said, passes=True)
    return EmbeddingError(f"the embedding server answered {status}", passes=True)


def digest_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:DIGEST_BYTES]


def without(texts: Sequence[str], known: Mapping[bytes, Array]) -> Iterator[str]:
    """Those that are not embedded yet, each once."""
    seen = set(known)
    for text in texts:
        if (digest := digest_of(text)) not in seen:
            seen.add(digest)
            yield text
