"""Runs passes over the keys of the work queue, so many at a time."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from llm_operator import metrics
from llm_operator.api.text import cut
from llm_operator.kube.client import ConflictError, DeleteRefusedError, RefusedError
from llm_operator.kube.failure import trace_of
from llm_operator.kube.plan import GoneError, Key
from llm_operator.kube.queue import WorkQueue

logger = logging.getLogger(__name__)

PASS_SECONDS = 120.0  # a pass that takes longer is broken off and tried again
RESYNC_SPREAD = 0.2
LOGGED_BYTES = 8192  # of one failure
REST_SECONDS = 0.2  # a pass makes a Job, and the Job controller answers with five changes within this time

Pass = Callable[[Key], Awaitable[float | None]]
"""One pass over a key; returns the seconds after which it wants the next one, None if only a change is of interest.

Raises GoneError if the object is gone: then the key is forgotten until something adds it again.
"""


def share_of_one(count: int) -> int:
    """How many of so many workers one namespace may keep busy."""
    return max(1, count * 3 // 4)


class Workers:
    """The queue and whoever empties it. ``name`` tells it apart in the metrics."""

    def __init__(self, work: Pass, *, name: str, count: int, resync_seconds: float) -> None:
        self.queue: WorkQueue[Key] = WorkQueue(
            rest=REST_SECONDS, tenant=lambda key: key.namespace, most=share_of_one(count)
        )
        self._work = work
        self._name = name
        self._count = count
        self._resync = resync_seconds
        self._changed = asyncio.Event()
        metrics.QUEUE_DEPTH.labels(name).set_function(lambda: self.queue.depth(time.monotonic()))
        metrics.QUEUE_OLDEST.labels(name).set_function(lambda: self.queue.oldest(time.monotonic()))
        metrics.ACTIVE_WORKERS.labels(name).set_function(lambda: self.queue.running)

    def add(self, key: Key, *, own: bool = False) -> None:
        """Asks for a pass as soon as a worker is free. ``own``: because of what a pass over this key has written."""
        self.queue.add(key, time.monotonic(), own=own)
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled; passes that are under way are cancelled too, which any pass must survive."""
        async with asyncio.TaskGroup() as passes:
            while True:
                self._changed.clear()
                while self.queue.running < self._count and (key := self.queue.take(time.monotonic())):
                    passes.create_task(self._pass(key))
                await self._wait()

    async def _wait(self) -> None:
        due = self.queue.next_due() if self.queue.running < self._count else None
        try:
            async with asyncio.timeout(None if due is None else max(0.0, due - time.monotonic())):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _pass(self, key: Key) -> None:
        started = time.monotonic()
        result = "error"
        try:
            async with asyncio.timeout(PASS_SECONDS):
                after = await self._work(key)
            result = "success" if after is None else "requeue_after"
            self.queue.succeeded(key)
            self.queue.add(key, time.monotonic() + self._next(after))
        except GoneError:
            result = "gone"
            self.queue.succeeded(key)
        except ConflictError:
            result = "conflict"  # the watch brings the newer version in a moment
            self.queue.retry(key, time.monotonic())
        except Exception as error:  # noqa: BLE001 - a pass may fail by anything, and is tried again
            metrics.RECONCILE_ERRORS.labels(self._name, key.kind).inc()
            delay = self.queue.retry(key, time.monotonic(), wanted_after(error))
            place = f"{key.kind} {key.namespace}/{key.name}"
            said = error.message if isinstance(error, RefusedError) else trace_of(error)
            text = cut(said, LOGGED_BYTES)
            logger.error("%s: %s failed, next try in %.1f s: %s", self._name, place, delay, text)
        finally:
            metrics.RECONCILES.labels(self._name, key.kind, result).inc()
            metrics.RECONCILE_TIME.labels(self._name, key.kind).observe(time.monotonic() - started)
            self.queue.done(key, time.monotonic())
            self._changed.set()

    def _next(self, after: float | None) -> float:
        resync = self._resync * random.uniform(1 - RESYNC_SPREAD, 1 + RESYNC_SPREAD)  # noqa: S311
        return resync if after is None else min(after, resync)


def wanted_after(error: Exception) -> float | None:
    """Seconds after which the pass that failed wanted the next one in any case."""
    return error.look_again if isinstance(error, DeleteRefusedError) else None
