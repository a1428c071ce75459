"""Makes an index in PostgreSQL: each revision has tables of its own, which appear whole by one transaction.

Words weigh what keyword.py has worked out, so that the same is found as by an index in a folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np

from llm_app.away import StoreError
from llm_app.config import IndexConfig
from llm_app.database import COLUMNS, VERSION, Place, as_json, clean, connected, revision_in, with_vectors
from llm_app.revision import Revision
from llm_app.store import Index
from llm_app.vectors import STORED, Vectors

EXACT = 10_000  # chunks; of more an approximate index is made
MOST_DIMENSIONS = 2000  # of such an index


class InPostgres:
    """revision.Store of one index Job."""

    def __init__(self, place: Place, config: IndexConfig) -> None:
        self._place, self._config = place, config

    @classmethod
    def of(cls, config: IndexConfig) -> Self:
        """Raises StoreError."""
        return cls(Place.of(config, config.knowledge), config)

    def holder_of(self, revision: str) -> str:
        return self._place.tables_of(revision)

    async def prepared(self) -> Revision | None:
        """Schema and list of revisions are there; the revision's row, if another pod has made it."""
        place, config = self._place, self._config
        async with connected(place) as connection:
            async with connection.transaction():
                # else two make them
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", place.schema)
                if not await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", place.schema):
                    await connection.execute(f'CREATE SCHEMA "{place.schema}"')
                await connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {place.revisions} (owner text, knowledge text, revision text, "
                    "tables text NOT NULL, documents bigint NOT NULL, chunks bigint NOT NULL, content text NOT NULL, "
                    "space text NOT NULL, probe bytea, made timestamptz NOT NULL DEFAULT now(), "
                    "PRIMARY KEY (owner, knowledge, revision))"
                )
                if config.embedding:
                    await has_extension(connection)
            return await revision_in(connection, place, config.revision)

    async def revision_of(self, name: str) -> Revision | None:
        async with connected(self._place) as connection:
            return await revision_in(connection, self._place, name)

    async def vectors_of(self, used: Revision) -> Vectors | None:
        if used.probe is None:
            return None
        async with connected(self._place) as connection:
            asked = f"SELECT digest, vector FROM {self._place.table('c', used.holder)} ORDER BY number"  # noqa: S608
            rows = await connection.fetch(asked)
        matrix = np.stack([row["vector"] for row in rows])
        return Vectors(matrix, tuple(row["digest"] for row in rows), used.probe)

    async def placed(self, built: Index) -> Revision:
        """All of it or nothing. If another pod was faster, its is as good."""
        place, config = self._place, self._config
        tables = place.tables_of(config.revision)
        chunks, listed = place.table("c", tables), place.table("w", tables)
        vectors = built.vectors
        async with connected(place) as connection:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", tables)
                if there := await revision_in(connection, place, config.revision):
                    return there
                kind = f", digest bytea, vector {await type_of(connection)}({vectors.dimensions})" if vectors else ""
                await connection.execute(
                    f"CREATE TABLE {chunks} (number int PRIMARY KEY, source text, title text, heading text, text text, "
                    f"metadata jsonb{kind})"
                )
                await connection.execute(f"CREATE TABLE {listed} (word text, chunk int, weight real)")
                names = [*COLUMNS, *(("digest", "vector") if vectors else ())]
                await connection.copy_records_to_table(
                    f"c_{tables}", schema_name=place.schema, columns=names, records=chunk_rows(built)
                )
                await connection.copy_records_to_table(
                    f"w_{tables}",
                    schema_name=place.schema,
                    columns=["word", "chunk", "weight"],
                    records=word_rows(built),
                )
                await connection.execute(f"CREATE INDEX ON {listed} (word)")
                await connection.execute(f"CREATE INDEX ON {chunks} USING gin (metadata jsonb_path_ops)")
                if vectors and len(built.chunks) > EXACT and vectors.dimensions <= MOST_DIMENSIONS:
                    await connection.execute(f"CREATE INDEX ON {chunks} USING hnsw (vector vector_ip_ops)")
                await add(connection, place, config.revision, tables, built)
            await connection.execute(f"ANALYZE {chunks}")
            await connection.execute(f"ANALYZE {listed}")
            return await checked(connection, place, config, built)

    async def placed_same(self, used: Revision) -> Revision:
        place, config = self._place, self._config
        async with connected(place) as connection:
            await connection.execute(
                f"INSERT INTO {place.revisions} SELECT owner, knowledge, $4, tables, documents, chunks, content, "  # noqa: S608
                f"space, probe FROM {place.revisions} WHERE owner = $1 AND knowledge = $2 AND revision = $3 "
                "ON CONFLICT DO NOTHING",
                place.owner,
                place.knowledge,
                used.name,
                config.revision,
            )
            row = await revision_in(connection, place, config.revision)
            if row is None:
                raise StoreError(f"revision {used.name} has gone from the database in between")
            return row

    async def remove_others(self, kept: set[str]) -> None:
        """Revisions of this knowledge base that nobody uses, and their tables unless another one leads there."""
        place = self._place
        async with connected(place) as connection:
            asked = f"SELECT revision FROM {place.revisions} WHERE owner = $1 AND knowledge = $2"  # noqa: S608
            rows = await connection.fetch(asked, place.owner, place.knowledge)
            await remove(connection, place, [row["revision"] for row in rows if row["revision"] not in kept])


async def has_extension(connection: Any) -> None:
    asked = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    version = await connection.fetchval(asked)
    if version is None:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        version = await connection.fetchval(asked)
    if tuple(int(part) for part in str(version).split(".")[:2] if part.isdigit()) < VERSION:
        said = f"the database has pgvector {version}, and {VERSION[0]}.{VERSION[1]} or newer is wanted"
        raise StoreError(f"{said}: ALTER EXTENSION vector UPDATE", passes=False)


async def type_of(connection: Any) -> str:
    """Of a vector, wherever the extension lies."""
    schema = await connection.fetchval(
        "SELECT n.nspname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typname = 'vector'"
    )
    await with_vectors(connection)  # the extension may have come with this Job
    return f'"{schema}".vector'


async def checked(connection: Any, place: Place, config: IndexConfig, built: Index) -> Revision:
    """That it has as much as was put there, and finds what it has; else it goes. Raises StoreError."""
    row = await revision_in(connection, place, config.revision)
    assert row  # noqa: S101 -- it was just written
    count = await connection.fetchval(f"SELECT count(*) FROM {place.table('c', row.holder)}")  # noqa: S608
    if count != len(built.chunks):
        await remove(connection, place, [config.revision])
        raise StoreError(f"the database has {count} chunks of {len(built.chunks)} that were written")
    return row


async def add(connection: Any, place: Place, revision: str, tables: str, built: Index) -> None:
    await connection.execute(
        f"INSERT INTO {place.revisions} (owner, knowledge, revision, tables, documents, chunks, content, space, probe) "  # noqa: S608
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        place.owner,
        place.knowledge,
        revision,
        tables,
        built.documents,
        len(built.chunks),
        built.content,
        built.space,
        built.vectors.probe.astype(STORED).tobytes() if built.vectors else None,
    )


def chunk_rows(built: Index) -> Iterator[tuple[object, ...]]:
    for number, chunk in enumerate(built.chunks):
        texts = (clean(chunk.source), clean(chunk.title), clean(chunk.heading), clean(chunk.text))
        row = (number, *texts, as_json(chunk.metadata))
        yield row if built.vectors is None else (*row, built.vectors.digests[number], built.vectors.matrix[number])


def word_rows(built: Index) -> Iterator[tuple[str, int, float]]:
    keywords = built.keywords
    for word, (start, end) in keywords.spans.items():
        for at in range(start, end):
            yield word, keywords.chunks[at], keywords.weights[at]


async def remove(connection: Any, place: Place, revisions: Sequence[str]) -> None:
    for revision in revisions:
        async with connection.transaction():
            row = await revision_in(connection, place, revision)
            of_these = "owner = $1 AND knowledge = $2"
            await connection.execute(
                f"DELETE FROM {place.revisions} WHERE {of_these} AND revision = $3",  # noqa: S608
                place.owner,
                place.knowledge,
                revision,
            )
            others = f"SELECT 1 FROM {place.revisions} WHERE {of_these} AND tables = $3"  # noqa: S608
            if row and not await connection.fetchval(others, place.owner, place.knowledge, row.holder):
                for letter in "cw":
                    await connection.execute(f"DROP TABLE IF EXISTS {place.table(letter, row.holder)}")
