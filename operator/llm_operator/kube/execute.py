"""Carries out a plan: delete, create, apply, one status write, then events. No decisions are made here."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from llm_operator import metrics
from llm_operator.api.common import GROUP
from llm_operator.api.text import cut
from llm_operator.kube.cache import Cache
from llm_operator.kube.client import ApiError, Client, ConflictError, NotFoundError, RefusedError
from llm_operator.kube.kinds import EVENT, KINDS
from llm_operator.kube.labels import MANAGED_BY
from llm_operator.kube.plan import Event, GoneError, Manifest, Plan

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
        written before stays, and the next pass goes on from there.
        """
        for child in plan.delete:
            left = await self._client.delete(owner["metadata"]["namespace"], child)
            metrics.WRITES.labels("delete", child.kind).inc()
            gone = {"metadata": {"namespace": owner["metadata"]["namespace"], "name": child.name, "uid": child.uid}}
            if left is None and self._cache.remove(child.kind, gone):
                self._changed(owner["kind"], owner)
            elif left is not None:
                self._keep(child.kind, left)
        for manifest in plan.create:
            await self._write("create", manifest, self._create)
        for manifest in plan.apply:
            await self._write("apply", manifest, self._client.apply)
        if plan.status is not None and plan.status != owner.get("status"):
            await self._write_status(owner, plan.status)
        for event in plan.events:
            await self._send(owner, event)

    async def _write(self, verb: str, manifest: Manifest, write: Callable[[Manifest], Awaitable[Manifest]]) -> None:
        try:
            answer = await write(manifest)
        except ApiError as error:
            if not error.refused:
                raise
            what = f"{manifest['kind']} {manifest['metadata']['name']}: {error.message}"
            raise RefusedError(error.status, what) from None
        metrics.WRITES.labels(verb, manifest["kind"]).inc()
        self._keep(manifest["kind"], answer)

    async def _create(self, manifest: Manifest) -> Manifest:
        """Or finds it there: a pass has made it that ended before it had the answer, and the watch is late."""
        kind, metadata = KINDS[manifest["kind"]], manifest["metadata"]
        try:
            return await self._client.create(kind, manifest)
        except ConflictError as conflict:
            # a list of one, as the right to list is there anyway
            there = await self._client.get(
                kind.path(metadata["namespace"]), {"fieldSelector": f"metadata.name={metadata['name']}"}
            )
            if not there["items"]:
                raise conflict from None  # gone by now, or the conflict was about a quota that changed
            found = {"apiVersion": kind.api_version, "kind": kind.name, **there["items"][0]}
        if not _is_ours(found, manifest):
            taken = f"{kind.name} {metadata['name']}: the name is taken by an object that is not ours; delete it"
            raise RefusedError(409, taken)
        return found

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
        try:
            await self._client.create(EVENT, event_manifest(owner, event, self._instance, datetime.now(UTC)))
        except ConflictError:  # said before
            return
        metrics.WRITES.labels("event", EVENT.name).inc()


def _is_ours(found: Manifest, manifest: Manifest) -> bool:
    """Of the same owner, and where our watches see it."""
    ours, theirs = ({owner["uid"] for owner in one["metadata"].get("ownerReferences", ())} for one in (manifest, found))
    return bool(ours & theirs) and MANAGED_BY in (found["metadata"].get("labels") or {})


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
