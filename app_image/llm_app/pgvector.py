"""A revision in PostgreSQL, which a server searches there: its pods hold no documents."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import asyncpg

from llm_app.away import StoreError
from llm_app.config import Knowledge
from llm_app.database import (
    COLUMNS,
    CONNECT_SECONDS,
    Place,
    as_json,
    clean,
    read_url,
    revision_in,
    told_clearly,
    with_vectors,
)
from llm_app.keyword import Hit
from llm_app.prompt import Passage
from llm_app.revision import Revision
from llm_app.store import StoredChunk
from llm_app.vectors import Array
from llm_app.words import words

SEARCH_SECONDS, POOL = 10.0, 8


class InDatabase:
    """A revision that is searched where it is (retrieval.Backend)."""

    def __init__(self, pool: Any, place: Place, row: Revision) -> None:
        self._pool, self._place, self._row = pool, place, row
        self._chunks, self._words = place.table("c", row.holder), place.table("w", row.holder)

    @classmethod
    @asynccontextmanager
    async def opened(cls, settings: Knowledge) -> AsyncIterator[Self]:
        """Raises StoreError."""
        place = Place.of(settings, settings.name)
        with read_url(), told_clearly(place):
            pool = await asyncpg.create_pool(
                place.url, min_size=1, max_size=POOL, timeout=CONNECT_SECONDS, command_timeout=SEARCH_SECONDS,
                statement_cache_size=0, init=with_vectors,
            )  # fmt: skip
        try:
            with told_clearly(place):
                async with pool.acquire() as connection:
                    row = await revision_in(connection, place, settings.revision)
            if row is None:
                said = f"the database has no revision {settings.revision} of {settings.name}"
                raise StoreError(f"{said}; delete the Job that made it, and it is made anew", passes=False)
            yield cls(pool, place, row)
        finally:
            pool.terminate()

    @property
    def chunks(self) -> int:
        return self._row.chunks

    @property
    def made(self) -> float:
        """In seconds since the epoch, by the database's clock."""
        return self._row.made

    @property
    def probe(self) -> Array | None:
        return self._row.probe

    async def by_words(self, question: str, most: int, minimum: float, where: Mapping[str, str]) -> list[Hit]:
        chosen = f" AND chunk IN (SELECT number FROM {self._chunks} WHERE metadata @> $4)" if where else ""  # noqa: S608
        asked = (
            f"SELECT chunk, sum(weight)::float8 AS score FROM {self._words} WHERE word = ANY($1){chosen} "  # noqa: S608
            "GROUP BY chunk HAVING sum(weight) >= $2 ORDER BY score DESC, chunk LIMIT $3"
        )
        given = [[clean(one) for one in dict.fromkeys(words(question))], minimum, most]
        rows = await self._fetch(asked, *given, *([as_json(where)] if where else []))
        return [(row["chunk"], row["score"]) for row in rows]

    async def by_meaning(self, question: Array, most: int, minimum: float, where: Mapping[str, str]) -> list[Hit]:
        chosen = "WHERE metadata @> $3" if where else ""
        asked = (
            f"SELECT number, -(vector <#> $1) AS score FROM {self._chunks} {chosen} "  # noqa: S608
            "ORDER BY vector <#> $1 LIMIT $2"
        )
        rows = await self._fetch(asked, question, most, *([as_json(where)] if where else []))
        return [(row["number"], row["score"]) for row in rows if row["score"] >= minimum]

    async def passages(self, hits: Sequence[Hit]) -> list[Passage]:
        if not hits:
            return []
        asked = f"SELECT {', '.join(COLUMNS)} FROM {self._chunks} WHERE number = ANY($1)"  # noqa: S608
        rows = {row["number"]: row for row in await self._fetch(asked, [number for number, _ in hits])}
        return [self._passage(rows[number], score) for number, score in hits if number in rows]

    def _passage(self, row: Mapping[str, Any], score: float) -> Passage:
        chunk = StoredChunk(row["source"], row["title"], row["heading"], row["text"], json.loads(row["metadata"]))
        return chunk.passage(self._place.knowledge, self._row.name, score)

    async def _fetch(self, asked: str, *given: object) -> Sequence[Mapping[str, Any]]:
        """Raises StoreError."""
        with told_clearly(self._place):
            async with self._pool.acquire(timeout=CONNECT_SECONDS) as connection:
                rows: Sequence[Mapping[str, Any]] = await connection.fetch(asked, *given)
                return rows
