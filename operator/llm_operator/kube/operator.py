"""The operator without kopf: cache, queue, leadership, and the one way from a key to what is written."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from llm_operator.kube.cache import Cache
from llm_operator.kube.client import ApiError, Client, ConflictError, DeleteRefusedError, RefusedError
from llm_operator.kube.execute import Executor
from llm_operator.kube.failure import cleared, settled, told
from llm_operator.kube.lease import Lease
from llm_operator.kube.login import Connection
from llm_operator.kube.plan import GoneError, Key, Manifest, Plan
from llm_operator.kube.room import Room
from llm_operator.kube.watches import Watches
from llm_operator.kube.workers import PASS_SECONDS, Workers
from llm_operator.settings import Settings

logger = logging.getLogger(__name__)

LASTING_FAILURES = 5  # in a row, some ten seconds: what passes by is told only then
TOLD = ("conditions", "phase", "observedGeneration")  # of a status: what a pass that fails writes


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
        self._seen: dict[Key, Manifest] = {}  # what a pass looked at that runs or has failed
        self._executor = Executor(self.client, cache, partial(self.wake, own=True), settings.pod_name)
        self._lease = Lease(
            self.client, settings.pod_namespace, settings.lease_name, settings.pod_name, settings.lease_seconds
        )
        self._running: asyncio.Task[None] | None = None

    # --- what wakes a key ----------------------------------------------------------------------------------------

    def wake(self, kind: str, manifest: Manifest, *, own: bool = False) -> None:
        """Queues whatever may have to change because this object did. ``own``: by a pass over who it belongs to."""
        if not self.reconciles:
            return  # whoever starts to lead looks at everything
        if kind in self._rooms:
            key = key_of(kind, manifest)
            self.workers.add(key, own=own or self._is_as_seen(key))
        if owner := self.cache.owner(manifest):
            self.workers.add(owner, own=own)
        for room in self._rooms.values():
            try:
                woken = list(room.wakes(kind, manifest))
            except Exception:  # one object that can't be read must not end the watch of all
                logger.exception("who is to be woken by %s %s", kind, manifest["metadata"]["name"])
                continue
            for key in woken:
                self.workers.add(key)

    def _is_as_seen(self, key: Key) -> bool:
        """Whether nothing has changed but what a failing pass writes since that pass looked: the echo of its write."""
        known, seen = self.cache.get(key.kind, key.namespace, key.name), self._seen.get(key)
        return known is not None and seen is not None and matters_of(known) == matters_of(seen)

    def _look_at(self, namespace: str | None) -> None:
        """Queues everything in a namespace, or in all."""
        for kind in self._rooms if self.reconciles else ():
            for manifest in self.cache.objects(kind, namespace):
                self.workers.add(key_of(kind, manifest))

    # --- what follows from it ------------------------------------------------------------------------------------

    async def _pass(self, key: Key) -> float | None:
        room = self._rooms[key.kind]
        owner = self.cache.get(key.kind, key.namespace, key.name)
        if owner is None or "deletionTimestamp" in owner["metadata"] or not self.watches.cover(key.namespace):
            self._forget(room, key)
            raise GoneError
        self._seen[key] = owner
        observed: Any = None
        plan = Plan()
        try:
            observed = await self._observe(room, key, owner)
            plan = cleared(owner, room.reconcile(observed, time.time()), room.about)
            await self._executor.execute(owner, plan)
            if plan.status is not None:
                room.wrote(key, owner, plan.status)
        except GoneError:
            self._forget(room, key)
            raise
        except Exception as error:
            if isinstance(error, DeleteRefusedError):
                error.look_again = plan.requeue_after
            if not passes_by(error) or self.workers.queue.failures(key) >= LASTING_FAILURES:
                await self._tell(room, owner, observed, plan, error)
            raise
        self._seen.pop(key, None)
        return plan.requeue_after

    def _forget(self, room: Room, key: Key) -> None:
        self._seen.pop(key, None)
        room.forget(key)

    async def _observe(self, room: Room, key: Key, owner: Manifest) -> Any:
        observed = room.observe(key)
        if observed is None:
            raise GoneError
        found = [await self._executor.find(kind, owner, name) for kind, name in room.unseen(observed)]
        return room.observe(key) if any(found) else observed

    async def _tell(self, room: Room, owner: Manifest, observed: Any, plan: Plan, error: Exception) -> None:
        """Whatever it is that has failed stands in the status; the traceback is in the log."""
        said = said_of(room, owner, observed, plan, error)
        try:
            await self._executor.execute(owner, said)
        except (ApiError, GoneError) as silent:
            metadata = owner["metadata"]
            place = f"{owner['kind']} {metadata['namespace']}/{metadata['name']}"
            logger.warning("%s: its status can't tell what failed: %s", place, silent)
            if isinstance(silent, ApiError) and silent.refused:  # what else it holds is none: then an event tells it
                await self._executor.execute(owner, replace(said, status=None))

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
            stalled = self.workers.queue.stalled(time.monotonic())
            if stalled > PASS_SECONDS * 2:
                yield f"keys wait in the work queue, and none was taken for {stalled:.0f} s"

    def unready(self) -> Iterator[str]:
        """What is missing before this replica can lead or stand by."""
        return self.watches.missing()

    def unserved(self) -> Iterator[str]:
        """What this replica does without: namespaces that can't be read."""
        return self.watches.refused()


def key_of(kind: str, manifest: Manifest) -> Key:
    return Key(kind, manifest["metadata"]["namespace"], manifest["metadata"]["name"])  # type: ignore[arg-type]


def matters_of(owner: Manifest) -> tuple[Manifest, Manifest]:
    """All but what a pass that fails writes. A spec that changed has another generation."""
    metadata = {field: value for field, value in owner["metadata"].items() if field != "resourceVersion"}
    return metadata, {field: value for field, value in (owner.get("status") or {}).items() if field not in TOLD}


def passes_by(error: Exception) -> bool:
    """No answer, or one that is about a change in between: mostly it is gone at the next try."""
    return isinstance(error, ConflictError) or (isinstance(error, ApiError) and error.status == 0)


def said_of(room: Room, owner: Manifest, observed: Any, plan: Plan, error: Exception) -> Plan:
    now = time.time()
    if isinstance(error, DeleteRefusedError):  # all else was done
        return told(owner, room.about, error, now, done=plan)
    if isinstance(error, RefusedError):
        try:
            return settled(owner, room.refused(observed, error.message, now), room.about)
        except Exception:
            logger.exception("%s: a refusal can't be told", owner["kind"])
    return told(owner, room.about, error, now)
