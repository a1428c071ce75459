"""Leader election by a coordination.k8s.io Lease: of two replicas one reconciles, the other stands by.

Clocks of two machines are never compared: a holder is taken for dead when this replica, by its own clock, has seen
no change of the Lease for as long as the Lease lasts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

from llm_operator import metrics
from llm_operator.kube.client import ApiError, Client, ConflictError, NotFoundError
from llm_operator.kube.kinds import LEASE
from llm_operator.kube.plan import Manifest

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0  # between two looks of a replica that stands by, and between two tries to renew after a failure


class LeaseLostError(RuntimeError):
    """Another replica may lead by now: stop at once."""


class Lease:
    """The claim of one replica to the leadership."""

    def __init__(self, client: Client, namespace: str, name: str, identity: str, seconds: float) -> None:
        self._client = client
        self._namespace, self._name, self._identity = namespace, name, identity
        self._seconds = seconds
        self._seen: Manifest | None = None
        self._seen_at = 0.0
        self.renewed_at: float | None = None  # time.monotonic() of the last renewal; None: doesn't lead

    @property
    def leads(self) -> bool:
        return self.renewed_at is not None

    async def acquire(self) -> None:
        """Returns when this replica leads."""
        while not await self._try_to_take():  # noqa: ASYNC110 - the other replica can't set an event here
            await asyncio.sleep(LOOK_SECONDS)
        logger.info("%s leads", self._identity)
        metrics.LEADER.set(1)

    async def hold(self) -> None:
        """Renews every third of the Lease's time; raises LeaseLostError well before another replica may take over."""
        while True:
            await asyncio.sleep(self._seconds / 3)
            assert self.renewed_at is not None, "hold() comes after acquire()"  # noqa: S101
            deadline = self.renewed_at + self._seconds * 2 / 3
            while not await self._try_to_renew():
                if time.monotonic() + LOOK_SECONDS > deadline:
                    raise LeaseLostError(f"the Lease could not be renewed for {self._seconds * 2 / 3:.0f} s")
                await asyncio.sleep(LOOK_SECONDS / 2)

    async def release(self) -> None:
        """Lets another replica lead at once. Whoever calls this has stopped to write."""
        if self.leads and self._seen:
            self.lost()
            try:
                await self._write(holder="", seconds=1)
            except ApiError as error:
                logger.warning("the Lease could not be released, it will run out: %s", error)

    def lost(self) -> None:
        """Another replica may lead: nothing is left to release."""
        self.renewed_at = None
        metrics.LEADER.set(0)

    async def _try_to_take(self) -> bool:
        try:
            await self._look()
            if self._seen is None or self._free():
                await self._write(holder=self._identity, seconds=self._seconds)
                return True
        except ApiError as error:
            if not isinstance(error, ConflictError):
                logger.warning("the Lease can't be read or taken: %s", error)
        return False

    async def _try_to_renew(self) -> bool:
        try:
            try:
                await self._write(holder=self._identity, seconds=self._seconds)
            except (ConflictError, NotFoundError):
                await self._look()
                if self._seen is None or self._seen["spec"].get("holderIdentity") != self._identity:
                    raise LeaseLostError("another replica took the Lease, or it was deleted") from None
                return False
        except ApiError as error:
            logger.warning("the Lease can't be renewed: %s", error)
            return False
        return True

    def _free(self) -> bool:
        spec = self._seen["spec"] if self._seen else {}
        if spec.get("holderIdentity") in (None, "", self._identity):
            return True
        return time.monotonic() - self._seen_at > float(spec.get("leaseDurationSeconds", self._seconds))

    async def _look(self) -> None:
        try:
            found: Manifest | None = await self._request("GET")
        except NotFoundError:
            found = None
        known = self._seen["metadata"]["resourceVersion"] if self._seen else None
        if found is None or found["metadata"]["resourceVersion"] != known:
            self._seen, self._seen_at = found, time.monotonic()

    async def _write(self, holder: str, seconds: float) -> None:
        """Writes the Lease on top of what was seen last; ConflictError if it has changed since."""
        started = time.monotonic()
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = self._seen["spec"] if self._seen else {}
        taken = holder != old.get("holderIdentity")
        version = {"resourceVersion": self._seen["metadata"]["resourceVersion"]} if self._seen else {}
        lease: Manifest = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.name,
            "metadata": {"name": self._name, "namespace": self._namespace, **version},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": max(1, round(seconds)),
                "acquireTime": now if taken else old.get("acquireTime", now),
                "renewTime": now,
                "leaseTransitions": old.get("leaseTransitions", -1) + (taken and bool(holder)),
            },
        }
        self._seen = await self._request("PUT" if self._seen else "POST", lease)
        self._seen_at = time.monotonic()
        if holder:
            self.renewed_at = started

    async def _request(self, method: str, body: Manifest | None = None) -> Manifest:
        path = LEASE.path(self._namespace, None if method == "POST" else self._name)
        return await self._client.request(method, path, body=body, attempts=1, timeout_seconds=LOOK_SECONDS)
