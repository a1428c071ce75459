"""The operator without kopf: cache, queue, leadership, and the one way from a key to what is written."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping

from llm_operator.kube.cache import Cache, owners
from llm_operator.kube.client import Client, RefusedError
from llm_operator.kube.execute import Executor
from llm_operator.kube.lease import Lease
from llm_operator.kube.login import Connection
from llm_operator.kube.plan import GoneError, Key, Manifest
from llm_operator.kube.room import Room
from llm_operator.kube.watches import Watches
from llm_operator.kube.workers import PASS_SECONDS, Workers
from llm_operator.settings import Settings

logger = logging.getLogger(__name__)


class Operator:
    """One replica. ``rooms`` gives the controller of each kind. Closes the client when it ends."""

    def __init__(
        self, settings: Settings, connection: Connection, client: Client, cache: Cache, rooms: Mapping[str, Room]
    ) -> None:
        self.settings = settings
        self.cache = cache
        self.connection = connection
        self.client = client
        self.workers = Workers(
            self._pass, name="reconcile", count=settings.workers, resync_seconds=settings.resync_seconds
        )
        self.watches = Watches(client, cache, settings, changed=self.wake, listed=self._look_at)
        self.stop = asyncio.Event()  # set: this process must end
        self._rooms = rooms
        self.reconciles = False  # leads, and has woken everything that it knows
        self._executor = Executor(self.client, cache, self.wake, settings.pod_name)
        self._lease = Lease(
            self.client, settings.pod_namespace, settings.lease_name, settings.pod_name, settings.lease_seconds
        )
        self._running: asyncio.Task[None] | None = None

    # --- what wakes a key ----------------------------------------------------------------------------------------

    def wake(self, kind: str, manifest: Manifest) -> None:
        """Queues whatever may have to change because this object did."""
        if not self.reconciles:
            return  # whoever starts to lead looks at everything
        if kind in self._rooms:
            self._add(kind, manifest)
        for key in owners(manifest):
            self.workers.add(key)
        for room in self._rooms.values():
            for key in room.wakes(kind, manifest):
                self.workers.add(key)

    def _look_at(self, namespace: str | None) -> None:
        """Queues everything in a namespace, or in all."""
        for kind in self._rooms if self.reconciles else ():
            for manifest in self.cache.objects(kind, namespace):
                self._add(kind, manifest)

    def _add(self, kind: str, manifest: Manifest) -> None:
        metadata = manifest["metadata"]
        self.workers.add(Key(kind, metadata["namespace"], metadata["name"]))  # type: ignore[arg-type]

    # --- what follows from it ------------------------------------------------------------------------------------

    async def _pass(self, key: Key) -> float | None:
        owner = self.cache.get(key.kind, key.namespace, key.name)
        if owner is None or "deletionTimestamp" in owner["metadata"] or not self.watches.cover(key.namespace):
            raise GoneError
        room = self._rooms[key.kind]
        observed = room.observe(key)
        if observed is None:
            raise GoneError
        plan = room.reconcile(observed, time.time())
        try:
            await self._executor.execute(owner, plan)
        except RefusedError as refusal:
            await self._executor.execute(owner, room.refused(observed, refusal.message, time.time()))
            raise
        return plan.requeue_after

    # --- leadership ----------------------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        return self._lease.leads

    def start(self) -> None:
        """Fills the cache, then stands for election; reconciles from when it leads until ``close``."""
        self._running = asyncio.create_task(self._run(), name="operator")

    async def close(self) -> None:
        """Stops to write, then lets another replica lead."""
        self.stop.set()
        if self._running:
            self._running.cancel()
            await asyncio.wait({self._running})
        await self._lease.release()
        await self.client.close()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.watches.run())
                await self.watches.ready()
                await self._lead()
        except Exception:
            logger.exception("this replica stops")
            self._lease.lost()
            self.stop.set()
            raise

    async def _lead(self) -> None:
        await self._lease.acquire()
        async with asyncio.TaskGroup() as duties:
            duties.create_task(self._lease.hold())
            self.reconciles = True
            self._look_at(None)
            duties.create_task(self.workers.run())
            for room in self._rooms.values():
                duties.create_task(room.run(self.workers.add))

    # --- health --------------------------------------------------------------------------------------------------

    def dead(self) -> Iterator[str]:
        """Reasons to restart this process."""
        yield from self.watches.stale()
        if self._lease.renewed_at is not None:
            age = time.monotonic() - self._lease.renewed_at
            if age > self.settings.lease_seconds:
                yield f"the Lease was not renewed for {age:.0f} s"
            waits = self.workers.queue.oldest(time.monotonic())
            if waits > PASS_SECONDS * 2:
                yield f"the head of the work queue has waited for {waits:.0f} s"

    def unready(self) -> Iterator[str]:
        """What is missing before this replica can lead or stand by."""
        return self.watches.missing()
