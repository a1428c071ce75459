"""One revision of a knowledge base as a store outside of the pods keeps it, and how a Job makes it there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from llm_app.config import IndexConfig
from llm_app.embedded import embedded, still_same
from llm_app.store import Index
from llm_app.vectors import Array, Vectors

Build = Callable[[IndexConfig], tuple[Index, dict[str, object]]]


@dataclass(frozen=True)
class Revision:
    """``holder``: the name of what has its chunks; another revision's, if nothing changed."""

    name: str
    holder: str
    documents: int
    chunks: int
    content: str
    space: str
    probe: Array | None
    made: float  # seconds since the epoch, by the clock of the store or, if that tells none, of the Job

    def told(self) -> dict[str, object]:
        told: dict[str, object] = {"documents": self.documents, "chunks": self.chunks}
        return told if self.probe is None else {**told, "dimensions": len(self.probe)}


class Store(Protocol):
    """Of the index Job of one knowledge base. Each raises StoreError."""

    def holder_of(self, revision: str) -> str:
        """The name that a revision's own chunks have."""

    async def prepared(self) -> Revision | None:
        """All is there that a revision needs; the Job's own, if another pod has made it."""

    async def revision_of(self, name: str) -> Revision | None: ...

    async def vectors_of(self, used: Revision) -> Vectors | None: ...

    async def placed(self, built: Index) -> Revision:
        """All of it or nothing. If another pod was faster, its is as good."""

    async def placed_same(self, used: Revision) -> Revision:
        """The Job's revision has all that another one has."""

    async def remove_others(self, kept: set[str]) -> None: ...


def make_in(store: Store, config: IndexConfig, build: Build) -> dict[str, object]:
    """The figures of the revision that is there in the end. Raises StoreError, EmbeddingError or DataError."""
    there = asyncio.run(store.prepared())
    told: dict[str, object] = {}
    if there is None:
        there, told = made(store, config, build)
    asyncio.run(store.remove_others({config.revision, *config.keep}))
    if there.holder != store.holder_of(config.revision):
        others = [one for one in (config.used, *config.keep) if store.holder_of(one) == there.holder]
        told |= {"same": others[0]} if others else {}
    return {**there.told(), **told}


def made(store: Store, config: IndexConfig, build: Build) -> tuple[Revision, dict[str, object]]:
    built, told = build(config)
    used = asyncio.run(store.revision_of(config.used)) if config.used else None
    if config.embedding:
        built = replace(built, space=config.embedding.space)
    if used and used.content == built.content and is_of_now(used, config):
        return asyncio.run(store.placed_same(used)), told
    if config.embedding:
        known = asyncio.run(store.vectors_of(used)) if used and used.space == built.space else None
        built, told["embedded"] = embedded(built, config, known, None)
    return asyncio.run(store.placed(built)), told


def is_of_now(used: Revision, config: IndexConfig) -> bool:
    """Whether its vectors are of the model that is served, which may have changed behind its name."""
    if config.embedding is None:
        return True
    if used.probe is None:
        return False
    return still_same(Vectors(np.empty((0, len(used.probe)), dtype=np.float32), (), used.probe), config)
