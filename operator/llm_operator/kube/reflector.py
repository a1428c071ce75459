"""Keeps the cache like one collection of the API server: a list in pages, then a watch from where the list ended.

A watch that ends is begun again from the last version that it told of. When the server has forgotten that version
everything is listed anew, which also shows what was deleted in between.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections.abc import Callable, Sequence

from llm_operator.kube.cache import Cache
from llm_operator.kube.client import JSON, METADATA, METADATA_LIST, ApiError, Client
from llm_operator.kube.kinds import Kind
from llm_operator.kube.labels import MANAGED_BY, OPERATOR
from llm_operator.kube.plan import Manifest

logger = logging.getLogger(__name__)

SELECTOR = f"{MANAGED_BY}={OPERATOR}"
STEP_SECONDS = 0.02  # of one list, before all else that waits has its turn
SILENT_SECONDS = 100.0  # bookmarks come every minute: a connection that tells nothing for longer is dead
FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 5.0
EXPIRED = 410
REFUSED = (403, 404)  # no right, which may be no namespace; no such kind, its definition is missing
REFUSED_IN_THE_END = 6  # failures in a row: an answer of another kind, such as 500 of an object that can't be decoded
NOT_ITS_OWN = (0, 401, 429, 502, 503, 504)  # no answer, no login, a busy server: about more than one collection
AHEAD = "Too large resource version"  # what we know is newer than what there is

Changed = Callable[[str, Manifest], None]


class Reflector:
    """One kind in one namespace, or in all. Calls ``turned`` when it begins or ceases to know all that there is."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        kind: Kind,
        namespace: str | None,
        *,
        changed: Changed,
        turned: Callable[[], None],
        watch_seconds: int,
        lists: asyncio.Semaphore,
    ) -> None:
        self.kind = kind
        self.namespace = namespace
        self.listed = False
        self.refusal = ""  # why it may not be listed; then it is not listed, whatever was known before
        self.heard_at = time.monotonic()  # when the API server last said anything
        self._client, self._cache = client, cache
        self._changed, self._turned = changed, turned
        self._watch_seconds = watch_seconds
        self._lists = lists  # so many at a time: each holds a page
        self._path = kind.path(namespace)
        self._selector = {"labelSelector": SELECTOR} if kind.ours else {}
        self._version = ""  # to watch from; empty: to be listed
        self._newest = 0  # version of the last list
        self._failures = 0  # in a row

    def __str__(self) -> str:
        return f"{self.kind.name} in namespace {self.namespace}" if self.namespace else self.kind.name

    async def run(self) -> None:
        """Until cancelled; an API server that refuses, breaks off or is away does not end it."""
        while True:
            began = time.monotonic()
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except ApiError as error:
                self._failed(error)
            if time.monotonic() - began > LONGEST_BACKOFF_SECONDS and self._version:
                self._failures = 0  # it did watch
            await asyncio.sleep(backoff(self._failures))
            self._failures += 1

    async def _list(self) -> None:
        uids: set[str] = set()
        accept = METADATA_LIST if self.kind.metadata_only else JSON
        async with self._lists:
            async for page in self._client.pages(self._path, self._selector, accept):
                self.heard_at = time.monotonic()
                self._begin(int(page["metadata"]["resourceVersion"]))
                await self._take_page(page["items"] or (), uids)
                version = str(page["metadata"]["resourceVersion"])
                if not self.listed:  # it stays: or the garbage collector would look through it again and again
                    gc.freeze()
        for gone in self._cache.keep_only(self.kind.name, self.namespace, uids, int(version)):
            self._changed(self.kind.name, gone)
        self._version = version

    async def _take_page(self, manifests: Sequence[Manifest], uids: set[str]) -> None:
        """Others have their turn in between: a page may have thousands of objects, or large ones."""
        began = time.monotonic()
        for manifest in manifests:
            uids.add(manifest["metadata"]["uid"])
            self._seen(manifest)
            if time.monotonic() - began >= STEP_SECONDS:
                await asyncio.sleep(0)
                began = time.monotonic()

    def _begin(self, version: int) -> None:
        """A list is of now. If it is older than one before, etcd was restored from a backup: that is the truth now."""
        if version < self._newest:
            logger.warning("%s: the API server has gone back to an earlier state; all is read anew", self)
            self._cache.clear(self.kind.name, self.namespace)
            self._turn(listed=False, refusal="")
        self._newest = version

    async def _watch(self) -> None:
        query = {
            **self._selector,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(self._watch_seconds),
        }
        accept = METADATA if self.kind.metadata_only else JSON
        async with self._client.watch(self._path, query, accept, silent_seconds=SILENT_SECONDS) as events:
            self.heard_at = time.monotonic()
            if self.refusal:
                logger.info("%s: can be listed and watched again", self)
            self._turn(listed=True, refusal="")
            began, heard = self.heard_at, False
            async for event in events:
                self.heard_at, heard = time.monotonic(), True
                if "type" not in event:  # a Status in its place
                    raise ApiError(event.get("code") or EXPIRED, event.get("message") or "no event came")
                self._take(event["type"], event["object"])
        if not heard and time.monotonic() - began >= 0.9 * self._watch_seconds:
            self._version = ""  # not even a bookmark: of a version that doesn't exist yet the server says nothing

    def _take(self, what: str, manifest: Manifest) -> None:
        if what == "ERROR":
            self._version = ""
            raise ApiError(manifest.get("code") or EXPIRED, manifest.get("message", ""))
        if what == "DELETED":
            self._carefully(self._cache.remove, manifest)
        elif what != "BOOKMARK":
            self._seen(manifest)
        self._version = manifest["metadata"]["resourceVersion"]

    def _seen(self, manifest: Manifest) -> None:
        self._carefully(self._cache.put, manifest)

    def _carefully(self, keep: Callable[[str, Manifest], bool], manifest: Manifest) -> None:
        """One object that can't be read must not end the watch of all, and with it the process."""
        try:
            if keep(self.kind.name, manifest):
                self._changed(self.kind.name, manifest)
        except Exception:
            logger.exception("%s: %s can't be read and is left as it was", self, manifest["metadata"]["name"])

    def _failed(self, error: ApiError) -> None:
        lasting = self._failures >= REFUSED_IN_THE_END and error.status not in (*NOT_ITS_OWN, EXPIRED)
        if error.status in REFUSED or lasting:
            self._version = ""
            self.heard_at = time.monotonic()
            if error.message != self.refusal:
                logger.warning("%s can't be listed, the namespace waits until it can: %s", self, error)
            self._turn(listed=False, refusal=error.message)
        elif error.status == EXPIRED or AHEAD in error.message or self._is_silent():
            self._version = ""
        elif self._failures:
            logger.warning("%s can't be watched: %s", self, error)

    def _is_silent(self) -> bool:
        return time.monotonic() - self.heard_at >= SILENT_SECONDS

    def _turn(self, *, listed: bool, refusal: str) -> None:
        before = (self.listed, bool(self.refusal))
        self.listed, self.refusal = listed, refusal
        if before != (listed, bool(refusal)):
            self._turned()


def backoff(failures: int) -> float:
    """Seconds; spread, because what breaks one watch breaks all."""
    return min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 30), LONGEST_BACKOFF_SECONDS) * random.uniform(0.5, 1)  # noqa: S311
