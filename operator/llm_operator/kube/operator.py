"""The operator without kopf: cache, queue, leadership, and the one way from a key to what is written."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterator, Mapping
from functools import partial

from llm_operator import metrics
from llm_operator.kube.cache import Cache, owners
from llm_operator.kube.client import METADATA_ONLY, ApiError, Client, RefusedError
from llm_operator.kube.execute import Executor
from llm_operator.kube.kinds import KINDS, WATCHED
from llm_operator.kube.labels import MANAGED_BY, OPERATOR
from llm_operator.kube.lease import Lease
from llm_operator.kube.login import Connection
from llm_operator.kube.plan import GoneError, Key, Manifest
from llm_operator.kube.room import Room
from llm_operator.kube.watches import Watches
from llm_operator.kube.workers import PASS_SECONDS, Workers
from llm_operator.settings import Settings

logger = logging.getLogger(__name__)

SELECTOR = f"{MANAGED_BY}={OPERATOR}"
SETTLE_SECONDS = 5.0  # before a list of ours is compared with what kopf makes of its own


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
        self.watches = Watches(settings.watch_seconds, self._relisted)
        self.stop = asyncio.Event()  # set: this process must end
        self._rooms = rooms
        self._synced = asyncio.Event()
        self.reconciles = False  # leads, and knows all that there is
        self._executor = Executor(self.client, cache, self.wake, settings.pod_name)
        self._lease = Lease(
            self.client, settings.pod_namespace, settings.lease_name, settings.pod_name, settings.lease_seconds
        )
        self._leading: asyncio.Task[None] | None = None
        self._comparisons: set[asyncio.Task[None]] = set()
        for kind in WATCHED:
            metrics.WATCH_AGE.labels(kind.name).set_function(partial(self._watch_age, kind.name))

    # --- what the watches say ------------------------------------------------------------------------------------

    def seen(self, kind: str, manifest: Manifest) -> None:
        """An object exists, as a list or a watch says."""
        if self.cache.put(kind, manifest):
            self.wake(kind, manifest)

    def deleted(self, kind: str, manifest: Manifest) -> None:
        """An object doesn't exist any more."""
        if self.cache.remove(kind, manifest):
            self.wake(kind, manifest)

    def synced(self) -> None:
        """The cache holds all that there was when the watches started. Nothing is decided before."""
        self._synced.set()

    def wake(self, kind: str, manifest: Manifest) -> None:
        """Queues whatever may have to change because this object did."""
        if not self.reconciles:
            return  # whoever starts to lead looks at everything
        metadata = manifest["metadata"]
        if kind in self._rooms:
            self.workers.add(Key(kind, metadata["namespace"], metadata["name"]))  # type: ignore[arg-type]
        for key in owners(manifest):
            self.workers.add(key)
        for room in self._rooms.values():
            for key in room.wakes(kind, manifest):
                self.workers.add(key)

    def _relisted(self, kind: str) -> None:
        comparison = asyncio.create_task(self._compare(kind), name=f"compare {kind}")
        self._comparisons.add(comparison)
        comparison.add_done_callback(self._comparisons.discard)

    async def _compare(self, kind: str) -> None:
        """Drops from the cache what was deleted while nobody watched."""
        await asyncio.sleep(SETTLE_SECONDS)
        query = {"labelSelector": SELECTOR} if KINDS[kind].ours else None
        for namespace in self.settings.namespaces or (None,):
            try:
                listed = await self.client.get(KINDS[kind].path(namespace), query, accept=METADATA_ONLY)
            except ApiError as error:
                logger.warning("%s can't be listed, what was deleted shows later: %s", kind, error)
                continue
            uids = {item["metadata"]["uid"] for item in listed["items"]}
            as_of = int(listed["metadata"]["resourceVersion"])
            for gone in self.cache.keep_only(kind, namespace, uids, as_of):
                self.wake(kind, gone)

    def _watch_age(self, kind: str) -> float:
        return self.watches.ages().get(kind, math.nan)

    # --- what follows from it ------------------------------------------------------------------------------------

    async def _pass(self, key: Key) -> float | None:
        owner = self.cache.get(key.kind, key.namespace, key.name)
        if owner is None or "deletionTimestamp" in owner["metadata"]:
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
        """Stands for election; reconciles from when it leads and the caches are filled until ``close``."""
        self._leading = asyncio.create_task(self._lead(), name="lead")

    async def close(self) -> None:
        """Stops to write, then lets another replica lead."""
        self.stop.set()
        if self._leading:
            self._leading.cancel()
            await asyncio.wait({self._leading})
        await self._lease.release()
        await self.client.close()

    async def _lead(self) -> None:
        try:
            await self._lease.acquire()
            async with asyncio.TaskGroup() as duties:
                duties.create_task(self._lease.hold())
                await self._synced.wait()
                self._look_at_everything()
                duties.create_task(self.workers.run())
                for room in self._rooms.values():
                    duties.create_task(room.run(self.workers.add))
        except Exception:
            logger.exception("this replica stops")
            self._lease.lost()
            self.stop.set()
            raise

    def _look_at_everything(self) -> None:
        self.reconciles = True
        for kind in self._rooms:
            for manifest in self.cache.objects(kind):
                self.wake(kind, manifest)

    # --- health --------------------------------------------------------------------------------------------------

    def dead(self) -> Iterator[str]:
        """Reasons to restart this process."""
        for kind in self.watches.stale():
            yield f"the watch of {kind} was not renewed for {self.watches.ages()[kind]:.0f} s"
        if self._lease.renewed_at is not None:
            age = time.monotonic() - self._lease.renewed_at
            if age > self.settings.lease_seconds:
                yield f"the Lease was not renewed for {age:.0f} s"
            waits = self.workers.queue.oldest(time.monotonic())
            if waits > PASS_SECONDS * 2:
                yield f"the head of the work queue has waited for {waits:.0f} s"

    def unready(self) -> Iterator[str]:
        """What is missing before this replica can lead or stand by."""
        for kind in self.watches.missing():
            yield f"{kind} was not listed yet"
