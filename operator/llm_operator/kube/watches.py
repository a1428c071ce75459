"""All that is watched: each kind in each namespace. What a namespace holds is acted on only when all of it is known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial

from llm_operator import metrics
from llm_operator.kube.cache import Cache
from llm_operator.kube.client import Client
from llm_operator.kube.kinds import watched
from llm_operator.kube.reflector import Changed, Reflector
from llm_operator.settings import Settings

SLACK_SECONDS = 90.0  # for a watch that has ended to be begun again
LISTS = 2  # at a time: a page of large objects takes tens of MiB while it is read

Namespace = str | None  # None: all


class Watches:
    """``listed`` is called with a namespace when all of it is known, for the first time or again."""

    def __init__(
        self, client: Client, cache: Cache, settings: Settings, *, changed: Changed, listed: Callable[[Namespace], None]
    ) -> None:
        self._limit = settings.watch_seconds + SLACK_SECONDS
        self._listed = listed
        self._ready = asyncio.Event()
        lists = asyncio.Semaphore(LISTS)
        all_kinds = watched(network_policies=settings.network_policies.enabled)
        self._scopes: dict[Namespace, list[Reflector]] = {
            namespace: [
                Reflector(
                    client, cache, kind, namespace, changed=changed, turned=partial(self._turned, namespace),
                    watch_seconds=settings.watch_seconds, lists=lists,
                )
                for kind in all_kinds
            ]
            for namespace in settings.namespaces or (None,)
        }  # fmt: skip
        for kind in all_kinds:
            metrics.WATCH_AGE.labels(kind.name).set_function(partial(self._age, kind.name))
            metrics.WATCH_REFUSED.labels(kind.name).set_function(partial(self._refused, kind.name))

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as watches:
            for reflector in self.reflectors:
                watches.create_task(reflector.run(), name=f"watch {reflector}")

    async def ready(self) -> None:
        """Returns when nothing is missing."""
        await self._ready.wait()

    def cover(self, namespace: str) -> bool:
        """Whether everything in this namespace is known."""
        return all(reflector.listed for reflector in self._scopes.get(namespace) or self._scopes[None])

    def missing(self) -> Iterator[str]:
        """What must be listed before anything is decided. A namespace that can't be read keeps no other waiting."""
        for reflector in self.reflectors:
            if not reflector.listed and not reflector.refusal:
                yield f"{reflector} was not listed yet"
        if not any(all(reflector.listed for reflector in kinds) for kinds in self._scopes.values()):
            refused = (reflector for reflector in self.reflectors if reflector.refusal)
            yield from (f"{reflector} can't be listed: {reflector.refusal}" for reflector in refused)

    def refused(self) -> Iterator[str]:
        """Namespaces that are not served because not all of them can be read, and why; all others are."""
        for namespace, kinds in self._scopes.items():
            if refused := [reflector for reflector in kinds if reflector.refusal]:
                names = ", ".join(reflector.kind.name for reflector in refused)
                who = f"namespace {namespace} is not" if namespace else "no namespace is"
                yield f"{who} served: {names} can't be listed and watched: {refused[0].refusal}"

    def stale(self) -> Iterator[str]:
        """Watches that should have been begun again by now."""
        for reflector in self.reflectors:
            age = time.monotonic() - reflector.heard_at
            if age > self._limit:
                yield f"the watch of {reflector} was not renewed for {age:.0f} s"

    def _turned(self, namespace: Namespace) -> None:
        if all(reflector.listed for reflector in self._scopes[namespace]):
            self._listed(namespace)
        if not any(self.missing()):
            self._ready.set()

    @property
    def reflectors(self) -> Iterator[Reflector]:
        for kinds in self._scopes.values():
            yield from kinds

    def _of(self, kind: str) -> Iterator[Reflector]:
        return (reflector for reflector in self.reflectors if reflector.kind.name == kind)

    def _age(self, kind: str) -> float:
        return max(time.monotonic() - reflector.heard_at for reflector in self._of(kind))

    def _refused(self, kind: str) -> int:
        return sum(bool(reflector.refusal) for reflector in self._of(kind))
