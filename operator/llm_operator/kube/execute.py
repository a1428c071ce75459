"""Carries out a plan: delete, create, apply, one status write, then events. No decisions are made here."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from llm_operator import metrics
from llm_operator.api.common import GROUP
from llm_operator.api.text import cut
from llm_operator.kube.cache import Cache
from llm_operator.kube.client import (
    ABSENT,
    ApiError,
    Client,
    ConflictError,
    DeleteRefusedError,
    NotFoundError,
    RefusedError,
)
from llm_operator.kube.kinds import EVENT, KINDS, Kind
from llm_operator.kube.labels import MANAGED_BY, OPERATOR
from llm_operator.kube.plan import Delete, Event, GoneError, Manifest, Plan

logger = logging.getLogger(__name__)

CONFLICT, INVALID = 409, 422
Changed = Callable[[str, Manifest], None]


class Executor:
    """Every answer goes into the cache at once, so that the next pass doesn't act on what was before its own write."""

    def __init__(self, client: Client, cache: Cache, changed: Changed, instance: str) -> None:
        self._client = client
        self._cache = cache
        self._changed = changed
        self._instance = instance

    async def execute(self, owner: Manifest, plan: Plan) -> None:
        """``owner`` is the reconciled object as the decision saw it.

        Raises ApiError (RefusedError if trying again won't help), or GoneError if the owner was deleted; what was
        written before stays, and the next pass goes on from there. A refusal keeps back only what depends on it.
        """
        refusals: list[RefusedError] = []
        kept: list[RefusedError] = []
        for child in plan.delete:
            with collected(kept):
                await self._delete(owner, child)
        for manifest in plan.create:
            await self._write("create", manifest, self._create)
        for manifest in plan.apply:
            with collected(refusals):
                await self._write("apply", manifest, self._apply)
        for refused, error in ((refusals, RefusedError), (kept, DeleteRefusedError)):
            if refused:
                raise error(refused[0].status, "; ".join(refusal.message for refusal in refused))
        if plan.status is not None and plan.status != owner.get("status"):
            await self._write_status(owner, plan.status)
        for event in plan.events:
            await self._send(owner, event)

    async def find(self, kind: Kind, owner: Manifest, name: str) -> Manifest | None:
        """Asks whether the owner has such a child, where the cache has none; from then on the cache knows it."""
        there = await self._there(kind, owner["metadata"]["namespace"], name)
        if there is None or not has_owner(there, owner["metadata"]["uid"]) or not in_sight(there):
            return None
        self._keep(kind.name, there)
        return there

    async def _delete(self, owner: Manifest, child: Delete) -> None:
        namespace = owner["metadata"]["namespace"]
        try:
            left = await self._client.delete(namespace, child)
        except ApiError as error:
            raise _refusal(error, child.kind, child.name, "can't be deleted: ") from None
        metrics.WRITES.labels("delete", child.kind).inc()
        gone = {"metadata": {"namespace": namespace, "name": child.name, "uid": child.uid}}
        if left is None and self._cache.remove(child.kind, gone):
            self._changed(owner["kind"], owner)
        elif left is not None:
            self._keep(child.kind, left)

    async def _write(self, verb: str, manifest: Manifest, write: Callable[[Manifest], Awaitable[Manifest]]) -> None:
        try:
            answer = await write(manifest)
        except RefusedError:
            raise
        except ApiError as error:
            raise _refusal(error, manifest["kind"], manifest["metadata"]["name"]) from None
        metrics.WRITES.labels(verb, manifest["kind"]).inc()
        self._keep(manifest["kind"], answer)

    async def _create(self, manifest: Manifest) -> Manifest:
        """Or finds it there: a pass has made it that ended before it had the answer, and the watch is late."""
        kind, metadata = KINDS[manifest["kind"]], manifest["metadata"]
        try:
            return await self._client.create(kind, manifest)
        except ConflictError as conflict:
            found = await self._there(kind, metadata["namespace"], metadata["name"])
            if found is None:
                raise conflict from None  # gone by now, or the conflict was about a quota that changed
        if not (has_owner(found, owner_uid(manifest)) and in_sight(found)):
            raise taken(manifest)
        return found

    async def _apply(self, manifest: Manifest) -> Manifest:
        """Over the child that is known, or where nothing is: never over what somebody else has made."""
        kind, metadata = KINDS[manifest["kind"]], manifest["metadata"]
        known = self._cache.get(kind.name, metadata["namespace"], metadata["name"])
        uid = known["metadata"]["uid"] if known and has_owner(known, owner_uid(manifest)) else None
        try:
            return await self._client.apply(manifest, {"uid": uid} if uid else ABSENT)
        except ApiError as error:
            if error.status not in (CONFLICT, INVALID):
                raise
            found = await self._there(kind, metadata["namespace"], metadata["name"])
            if found is not None and not has_owner(found, owner_uid(manifest)):
                raise taken(manifest) from None
            if found is None and uid:
                self._cache.remove(kind.name, {"metadata": {**metadata, "uid": uid}})  # the watch is late
            if found is None or found["metadata"]["uid"] == uid:
                raise
        return await self._client.apply(manifest, {"uid": found["metadata"]["uid"]})

    async def _there(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """By a list of one, as the right to list is there anyway."""
        there = await self._client.get(kind.path(namespace), {"fieldSelector": f"metadata.name={name}"})
        return {"apiVersion": kind.api_version, "kind": kind.name, **there["items"][0]} if there["items"] else None

    async def _write_status(self, owner: Manifest, status: Manifest) -> None:
        try:
            answer = await self._client.replace_status(owner, status)
        except NotFoundError:  # deleted, and the watch hasn't said so yet
            self._cache.remove(owner["kind"], owner)
            raise GoneError from None
        metrics.WRITES.labels("status", owner["kind"]).inc()
        self._keep(owner["kind"], answer)

    def _keep(self, kind: str, answer: Manifest) -> None:
        if self._cache.put(kind, answer):
            self._changed(kind, answer)

    async def _send(self, owner: Manifest, event: Event) -> None:
        """What it says stands in the status: that it could not be sent is no reason to do all again."""
        try:
            await self._client.create(EVENT, event_manifest(owner, event, self._instance, datetime.now(UTC)))
        except ConflictError:  # said before
            return
        except ApiError as error:
            logger.warning("no event %s: %s", event, error)
            return
        metrics.WRITES.labels("event", EVENT.name).inc()


@contextmanager
def collected(refusals: list[RefusedError]) -> Iterator[None]:
    try:
        yield
    except RefusedError as refusal:
        refusals.append(refusal)


def _refusal(error: ApiError, kind: str, name: str, what: str = "") -> ApiError:
    return RefusedError(error.status, f"{kind} {name}: {what}{error.message}") if error.refused else error


def taken(manifest: Manifest) -> RefusedError:
    what = f"{manifest['kind']} {manifest['metadata']['name']}"
    return RefusedError(CONFLICT, f"{what}: the name is taken by an object that is not ours; delete or rename it")


def owner_uid(manifest: Manifest) -> str:
    """Of one of our own manifests."""
    return str(manifest["metadata"]["ownerReferences"][0]["uid"])


def has_owner(found: Manifest, uid: str) -> bool:
    """Only this makes an object ours: names and labels are anybody's."""
    return any(owner["uid"] == uid for owner in found["metadata"].get("ownerReferences", ()))


def in_sight(found: Manifest) -> bool:
    """Where our watches see it."""
    return (found["metadata"].get("labels") or {}).get(MANAGED_BY) == OPERATOR


def event_manifest(owner: Manifest, event: Event, instance: str, now: datetime) -> Manifest:
    """An events.k8s.io Event whose name follows from what it says, so that saying it again makes no second one."""
    metadata = owner["metadata"]
    said = "\n".join((metadata["uid"], event.type, event.reason, event.message))
    name = f"{metadata['name'][:200]}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.name,
        "metadata": {"name": name, "namespace": metadata["namespace"]},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": f"{GROUP}/operator",
        "reportingInstance": instance[:128],
        "action": "Reconcile",
        "type": event.type,
        "reason": event.reason,
        "note": cut(event.message),
        "regarding": {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
    }
