"""Where conversations are kept between requests: a file of SQLite, or PostgreSQL. Bounded in number and in time."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llm_app.team import SESSIONS_URL, Sessions

SWEEP_SECONDS = 600.0
TABLES = {False: ("checkpoints", "writes"), True: ("checkpoints", "checkpoint_blobs", "checkpoint_writes")}
GREGORIAN = 0x01B21DD213814000  # 100 ns from the first day of its calendar to 1970


@asynccontextmanager
async def opened(settings: Sessions) -> AsyncIterator[Store]:
    """Raises OSError if it can't be."""
    if settings.postgres:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from psycopg import OperationalError
        from psycopg.rows import dict_row
        from psycopg_pool import AsyncConnectionPool, PoolTimeout

        options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        pool: Any = AsyncConnectionPool(os.environ.get(SESSIONS_URL, ""), kwargs=options, open=False, max_size=16)
        try:
            await pool.open(wait=True, timeout=30)
            saver: Any = AsyncPostgresSaver(pool)
            await saver.setup()
        except (OperationalError, PoolTimeout) as error:
            await pool.close()
            raise OSError(f"spec.sessions.postgres: the database can't be used: {error}") from None
        try:
            yield Store(settings, saver, pool)
        finally:
            await pool.close()
        return
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    folder = Path(settings.folder)
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 -- before the server listens
    async with AsyncSqliteSaver.from_conn_string(str(folder / "sessions.sqlite")) as saver:
        await saver.setup()
        yield Store(settings, saver)


class Store:
    def __init__(self, settings: Sessions, saver: Any, pool: Any = None) -> None:
        self._settings, self.saver, self._pool = settings, saver, pool
        self._swept = 0.0

    async def prune(self, session: str) -> None:
        """Leaves the newest state of a session alone: each holds the whole conversation."""
        if self._pool:
            await self.saver.aprune([session], strategy="keep_latest")
            return
        newest = "(SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = '')"
        for table in TABLES[False]:
            await self._execute(
                f"DELETE FROM {table} WHERE thread_id = ? AND (checkpoint_ns != '' OR checkpoint_id < {newest})",  # noqa: S608
                (session, session),
            )

    async def sweep(self) -> None:
        """Those that nobody has used for long, and the oldest beyond ``most``; not at each request."""
        if time.monotonic() - self._swept < SWEEP_SECONDS and self._swept:
            return
        self._swept = time.monotonic()
        grouped = "SELECT thread_id FROM checkpoints GROUP BY thread_id"
        mark = "%s" if self._pool else "?"
        beyond = f"{grouped} ORDER BY max(checkpoint_id) DESC LIMIT 1000000 OFFSET {int(self._settings.most)}"
        idle = f"{grouped} HAVING max(checkpoint_id) < {mark}"
        until = identity(time.time() - self._settings.idle_seconds)
        for found in (await self._select(idle, (until,)), await self._select(beyond, ())):
            for session in found:
                await self.saver.adelete_thread(session)

    async def _select(self, query: str, values: tuple[Any, ...]) -> list[str]:
        if self._pool:
            async with self._pool.connection() as connection:
                rows = await (await connection.execute(query, values)).fetchall()
            return [row["thread_id"] for row in rows]
        async with self.saver.lock, self.saver.conn.execute(query, values) as cursor:
            return [row[0] async for row in cursor]

    async def _execute(self, query: str, values: tuple[Any, ...]) -> None:
        async with self.saver.lock:
            await self.saver.conn.execute(query, values)
            await self.saver.conn.commit()


def identity(seconds: float) -> str:
    """The first of the checkpoints' identities of that time: they are UUIDs of version 6, sorted by time."""
    count = int(seconds * 1e7) + GREGORIAN
    return f"{count >> 28:08x}-{(count >> 12) & 0xFFFF:04x}-6{count & 0xFFF:03x}"
