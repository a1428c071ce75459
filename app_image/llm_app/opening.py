"""Opens what a server answers by, before it listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from llm_app.config import Knowledge
from llm_app.figures import Figures
from llm_app.retrieval import Backend, Base, InFolder, Retriever
from llm_app.store import Index, made_at


@asynccontextmanager
async def opened(knowledge: Sequence[Knowledge], figures: Figures) -> AsyncIterator[Retriever]:
    """Raises IndexDamagedError, StoreError, or OSError where the volume can't be read."""
    async with AsyncExitStack() as stack:
        bases: list[Base] = []
        for settings in knowledge:
            backend, chunks = await backend_of(settings, stack)
            figures.chunks.labels(settings.name).set(chunks)
            figures.made.labels(settings.name).set(backend.made)
            embedder = None
            if settings.embedding:
                from llm_app.embedding import Embedder

                embedder = await stack.enter_async_context(Embedder(settings.embedding, settings.name))
            bases.append(Base(settings, backend, embedder))
        yield Retriever(bases, figures)


async def backend_of(settings: Knowledge, stack: AsyncExitStack) -> tuple[Backend, int]:
    """With the number of its chunks."""
    if settings.store and settings.store.chroma:
        from llm_app.chroma_search import InChroma

        collection = await stack.enter_async_context(InChroma.opened(settings))
        return collection, collection.chunks
    if settings.store:
        from llm_app.pgvector import InDatabase

        database = await stack.enter_async_context(InDatabase.opened(settings))
        return database, database.chunks
    folder = Path(settings.folder)
    index = await asyncio.to_thread(Index.load, folder)
    return InFolder(index, made_at(folder)), len(index.chunks)
