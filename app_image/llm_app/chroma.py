"""Chroma as a Job and a server reach it, by its REST API (v2): where an app's revisions are, and what a server says.

By aiohttp, which the image has: Chroma's own client would bring a runtime of models, a client of Kubernetes and gRPC.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
import numpy as np

from llm_app.away import StoreError
from llm_app.config import STORE_TOKEN, ChromaServer, IndexConfig, Knowledge, of_knowledge
from llm_app.revision import Revision
from llm_app.vectors import STORED, Array

CONNECT_SECONDS, SEARCH_SECONDS, WRITE_SECONDS = 10.0, 10.0, 300.0
PAGE = 100  # collections of a list
FULL = ("database or disk is full", "No space left on device")
UNWRITTEN = "Error in compaction"  # all that it says on a full disk, and on a broken one
PREFIX = "llm-app-"
OWNER, KNOWLEDGE, REVISION, WORDS = "owner", "knowledge", "revision", "words"  # of a collection's metadata
NOT_OURS = "is not this app's; remove it, or choose another database"
Answer = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where the revisions of one knowledge base are. ``token`` is never told."""

    server: ChromaServer
    owner: str
    knowledge: str
    token: str

    @classmethod
    def of(cls, one: IndexConfig | Knowledge, name: str, environment: Mapping[str, str] = os.environ) -> Self:
        assert one.store  # noqa: S101 -- the caller has looked
        assert one.store.chroma  # noqa: S101
        token = environment.get(of_knowledge(STORE_TOKEN, name), "").strip()
        return cls(one.store.chroma, one.store.owner, name, token)

    @property
    def headers(self) -> dict[str, str]:
        if not self.token:
            return {}
        named = self.server.token_header
        return {named: f"Bearer {self.token}" if named == "Authorization" else self.token}

    def collection_of(self, revision: str) -> str:
        return PREFIX + hashlib.sha256(f"{self.owner}/{self.knowledge}/{revision}".encode()).hexdigest()[:32]

    def has(self, collection: Answer) -> bool:
        told = collection.get("metadata") or {}
        return (told.get(OWNER), told.get(KNOWLEDGE)) == (self.owner, self.knowledge)


class Chroma:
    """One pool of connections. Each raises StoreError."""

    def __init__(self, place: Place, session: aiohttp.ClientSession, seconds: float) -> None:
        self.place, self._session = place, session
        self._timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        self._database = f"/api/v2/tenants/{place.server.tenant}/databases/{place.server.database}"

    async def check(self) -> None:
        """That it is a Chroma with this database."""
        if await self.ask("GET", "", absent=True) is None:
            if await self._asked("GET", "/api/v2/heartbeat", None, absent=True) is None:
                said = f"what answers at {self.place.server.url} has no API v2 of Chroma"
                raise StoreError(f"{said}; Chroma 1.0 or newer is wanted", passes=False)
            named = f"database {self.place.server.database} of tenant {self.place.server.tenant}"
            raise StoreError(f"Chroma has no {named}; create it, or correct spec.knowledge[].store", passes=False)

    async def collection(self, name: str) -> Answer | None:
        """Of this app and knowledge base; None: there is none of this name."""
        found: Answer | None = await self.ask("GET", f"/collections/{name}", absent=True)
        if found is not None and not self.place.has(found):
            raise StoreError(f"collection {name} of Chroma {NOT_OURS}", passes=False)
        return found

    async def collections(self) -> AsyncIterator[Answer]:
        """Those of this app and knowledge base, of all that the database has."""
        offset = 0
        while page := await self.ask("GET", f"/collections?limit={PAGE}&offset={offset}"):
            for one in page:
                if self.place.has(one) and str(one.get("name", "")).startswith(PREFIX):
                    yield one
            offset += len(page)

    async def revision(self, name: str) -> Revision | None:
        found = await self.collection(self.place.collection_of(name))
        return revision_in(found) if found else None

    async def ask(self, method: str, path: str, body: object = None, *, absent: bool = False) -> Any:
        """``absent``: None for what is not there."""
        return await self._asked(method, self._database + path, body, absent=absent)

    async def _asked(self, method: str, path: str, body: object, *, absent: bool) -> Any:
        url = self.place.server.url.rstrip("/") + path
        try:
            async with self._session.request(
                method, url, json=body, timeout=self._timeout, allow_redirects=False
            ) as response:
                if response.status == 404 and absent:
                    return None
                if not response.ok or response.status >= 300:
                    raise refused(response.status, await response.text())
                return await response.json()
        except TimeoutError:
            raise StoreError("Chroma does not answer") from None
        except (aiohttp.ContentTypeError, ValueError):
            raise StoreError(f"what answers at {self.place.server.url} is no Chroma", passes=False) from None
        except (aiohttp.ClientError, OSError) as error:
            raise StoreError(f"Chroma can't be reached: {type(error).__name__}") from None


def refused(status: int, body: str) -> StoreError:
    said = body[:500]
    if status in (401, 403):
        return StoreError("Chroma does not take the token that the app has, or grants it too little", passes=False)
    if status == 507 or any(word in body for word in FULL):
        return StoreError(f"Chroma has no room: {said}", full=True)
    if UNWRITTEN in body:
        return StoreError(f"Chroma can't write, its volume may be full: {said}")
    if status == 404:
        return StoreError(f"Chroma has not what the app put there: {said}")
    return StoreError(f"Chroma answered {status}: {said}", passes=status >= 500 or status == 429)


@asynccontextmanager
async def connected(place: Place, seconds: float) -> AsyncIterator[Chroma]:
    async with aiohttp.ClientSession(headers=place.headers) as session:
        yield Chroma(place, session, seconds)


def revision_in(collection: Answer) -> Revision:
    """Raises StoreError."""
    told = collection["metadata"]
    try:
        probe = told.get("probe")
        return Revision(
            name=str(told[REVISION]),
            holder=str(told.get("holder") or collection["name"]),
            documents=int(told["documents"]),
            chunks=int(told["chunks"]),
            content=str(told["content"]),
            space=str(told["space"]),
            probe=None if probe is None else np.frombuffer(base64.b64decode(probe), dtype=STORED),
            made=float(told["made"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        said = f"collection {collection['name']} of Chroma has not what this app puts there ({error!r})"
        raise StoreError(f"{said}; delete it, and the Job", passes=False) from None


def told_of(revision: Revision) -> Answer:
    """As the metadata of its collection."""
    made: Answer = {
        REVISION: revision.name, "documents": revision.documents, "chunks": revision.chunks,
        "content": revision.content, "space": revision.space, "made": revision.made,
    }  # fmt: skip
    if revision.probe is not None:
        made["probe"] = base64.b64encode(revision.probe.astype(STORED).tobytes()).decode()
    return made


def sent(vectors: Array) -> list[str]:
    return [base64.b64encode(np.ascontiguousarray(row, dtype=STORED).tobytes()).decode() for row in vectors]


def chosen(where: Mapping[str, str]) -> Answer:
    """The condition that chunks of this metadata meet."""
    each: Sequence[Answer] = [{f"{METADATA}{key}": {"$eq": value}} for key, value in where.items()]
    return {} if not each else {"where": each[0] if len(each) == 1 else {"$and": [*each]}}


METADATA = "metadata."  # before the names of documents' own, which may be any
