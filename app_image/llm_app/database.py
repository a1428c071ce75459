"""PostgreSQL with pgvector, as a Job and a server reach it: where an app's revisions are, and what a database says."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import struct
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Self

import asyncpg
import numpy as np

from llm_app.away import StoreError
from llm_app.config import STORE_URL, IndexConfig, Knowledge, of_knowledge
from llm_app.revision import Revision
from llm_app.vectors import STORED, Array

VERSION = (0, 8)  # of pgvector: before it, an approximate search with metadata loses chunks
UNREADABLE = "the URL of store.pgvector can't be read; write signs of its password as %XX"
CONNECT_SECONDS = 10.0
REVISIONS = "llm_app_revisions"
COLUMNS = ("number", "source", "title", "heading", "text", "metadata")


@dataclass(frozen=True)
class Place:
    """Where the revisions of one knowledge base are. ``url`` is never told: it has the password."""

    url: str
    schema: str
    owner: str
    knowledge: str

    @classmethod
    def of(cls, one: IndexConfig | Knowledge, name: str, environment: Mapping[str, str] = os.environ) -> Self:
        """Raises StoreError."""
        assert one.store  # noqa: S101 -- the caller has looked
        url = environment.get(of_knowledge(STORE_URL, name), "").strip()
        if not url.startswith(("postgresql://", "postgres://")):
            raise StoreError(
                "what the Secret of store.pgvector.urlSecretKeyRef says is no postgresql:// URL", passes=False
            )
        return cls(url, one.store.schema_name, one.store.owner, name)

    @property
    def revisions(self) -> str:
        return f'"{self.schema}"."{REVISIONS}"'

    def table(self, letter: str, tables: str) -> str:
        return f'"{self.schema}"."{letter}_{tables}"'

    def tables_of(self, revision: str) -> str:
        return hashlib.sha256(f"{self.owner}/{self.knowledge}/{revision}".encode()).hexdigest()[:32]


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[Any]:
    """For a Job: what is written may take as long as it does."""
    with read_url(), told_clearly(place):
        connection = await asyncpg.connect(place.url, timeout=CONNECT_SECONDS, statement_cache_size=0)
    try:
        with told_clearly(place):
            await with_vectors(connection)
            yield connection
    finally:
        await connection.close(timeout=CONNECT_SECONDS)


async def with_vectors(connection: Any) -> None:
    """Vectors as pgvector sends them, if it is there: their number, nothing, and 32-bit numbers, big-endian."""
    schema = await connection.fetchval(
        "SELECT n.nspname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typname = 'vector'"
    )
    if schema is None:
        return
    await connection.set_type_codec("vector", schema=schema, encoder=sent, decoder=received, format="binary")
    await connection.execute("SET hnsw.iterative_scan = strict_order")


def sent(vector: Array) -> bytes:
    return struct.pack(">HH", len(vector), 0) + np.asarray(vector, dtype=">f4").tobytes()


def received(data: bytes) -> Array:
    return np.frombuffer(data, dtype=">f4", offset=4).astype(np.float32)


@contextmanager
def read_url() -> Iterator[None]:
    """Raises StoreError for a URL that can't be read: asyncpg's words may have parts of it, so of the password."""
    try:
        yield
    except ValueError:
        raise StoreError(UNREADABLE, passes=False) from None


@contextmanager
def told_clearly(place: Place) -> Iterator[None]:
    """Raises StoreError for all that a database says."""
    try:
        yield
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise StoreError(f"the database does not let the URL's user in: {error}", passes=False) from None
    except asyncpg.InvalidCatalogNameError as error:
        raise StoreError(f"the database server has no such database: {error}", passes=False) from None
    except asyncpg.InsufficientPrivilegeError as error:
        said = f"the database does not let its user do so: {error}; grant it, or create schema {place.schema}"
        raise StoreError(f"{said} and the extension vector there", passes=False) from None
    except (asyncpg.DiskFullError, asyncpg.OutOfMemoryError) as error:
        raise StoreError(f"the database has no room: {error}", full=True) from None
    except (asyncpg.UndefinedColumnError, asyncpg.UndefinedTableError, asyncpg.DatatypeMismatchError) as error:
        said = f"schema {place.schema} of the database has not what this app puts there ({error}); delete the Job"
        raise StoreError(f"{said} to make it anew, or choose another schemaName", passes=False) from None
    except asyncpg.ClientConfigurationError:
        raise StoreError(UNREADABLE, passes=False) from None
    except asyncpg.UndefinedFileError as error:
        said = f"the database server has no pgvector ({error}); install the extension vector, {VERSION[0]}.{VERSION[1]}"
        raise StoreError(f"{said} or newer", passes=False) from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise StoreError(f"the database says: {type(error).__name__}: {error}") from None
    except TimeoutError:
        raise StoreError("the database does not answer") from None
    except (OSError, asyncio.IncompleteReadError) as error:
        raise StoreError(f"the database can't be reached: {error}") from None


async def revision_in(connection: Any, place: Place, revision: str) -> Revision | None:
    found = await connection.fetchrow(
        f"SELECT * FROM {place.revisions} WHERE owner = $1 AND knowledge = $2 AND revision = $3",  # noqa: S608
        place.owner,
        place.knowledge,
        revision,
    )
    if not found:
        return None
    probe = None if found["probe"] is None else np.frombuffer(found["probe"], dtype=STORED)
    told = {name: found[name] for name in ("documents", "chunks", "content", "space")}
    made = found["made"].timestamp()
    return Revision(name=found["revision"], holder=found["tables"], probe=probe, made=made, **told)


def clean(text: str) -> str:
    """PostgreSQL has no NUL in a text."""
    return text.replace("\0", "")


def as_json(metadata: Mapping[str, str]) -> str:
    return json.dumps({clean(key): clean(value) for key, value in metadata.items()}, ensure_ascii=False)
