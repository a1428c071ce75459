"""What no object's status tells, but events do: why pods can't be made, why volumes can't be mounted, why a claim is
not bound. Events are read outside of passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from llm_operator.kube.cache import Cache
from llm_operator.kube.client import ApiError, Client
from llm_operator.kube.kinds import EVENT
from llm_operator.kube.plan import GoneError, Key, Manifest
from llm_operator.kube.pods import without_pod_name
from llm_operator.kube.poller import Poller, Wake
from llm_operator.training.waiting import NO_TROUBLE, Trouble

FAILED_CREATE = "FailedCreate"  # the Job controller's own word
LOOK_SECONDS = 10.0
MOST_PAGES = 4  # of events about one object: whoever may write events may write any number of them
REQUESTS_AT_ONCE = 4
REQUESTS_PER_SECOND = 20.0  # API servers keep events in no cache: each request reads all of a namespace from etcd


@dataclass(frozen=True)
class Suspect:
    """What may have something against it: a Job that lacks pods, a pod that doesn't start, a claim without a volume."""

    kind: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, manifest: Manifest) -> Suspect:
        metadata = manifest["metadata"]
        return cls(manifest["kind"], metadata["namespace"], metadata["name"], metadata["uid"])

    @property
    def selector(self) -> str:
        """Of the events that matter."""
        which = f"reason={FAILED_CREATE}" if self.kind == "Job" else "type=Warning"
        return f"regarding.uid={self.uid},{which}"


class Troubles:
    """Keeps what was last said of the one object of a training that may be in its way."""

    def __init__(self, cache: Cache, client: Client) -> None:
        self._cache = cache
        self._client = client
        self._poller: Poller[Suspect, Trouble | None] = Poller(
            "events", self._next, None, count=REQUESTS_AT_ONCE, per_second=REQUESTS_PER_SECOND
        )

    def follow(self, key: Key, suspect: Manifest | None) -> Trouble | None:
        """What is the matter with it; None while that was not read. ``suspect`` is None where nothing is amiss."""
        word = self._poller.follow(key, Suspect.of(suspect) if suspect else None)
        return word if suspect else NO_TROUBLE

    async def run(self, wake: Wake) -> None:
        """Until cancelled. Wakes a training of which something else is said."""
        await self._poller.run(wake)

    async def _next(self, suspect: Suspect, before: Trouble | None) -> tuple[Trouble | None, float]:
        there = self._cache.get(suspect.kind, suspect.namespace, suspect.name)
        if there is None or there["metadata"]["uid"] != suspect.uid:
            raise GoneError
        query = {"fieldSelector": suspect.selector}
        newest: list[Manifest] = []
        try:
            async with aclosing(self._client.pages(EVENT.path(suspect.namespace), query)) as pages:
                left = MOST_PAGES
                async for page in pages:
                    newest = sorted((*newest, *(page["items"] or ())), key=last_seen)[-1:]
                    left -= 1
                    if not left:
                        break
        except ApiError:
            return before, LOOK_SECONDS
        return trouble(suspect, newest), LOOK_SECONDS


def trouble(suspect: Suspect, events: Sequence[Manifest]) -> Trouble:
    """What the newest of these says."""
    newest: Manifest = max(events, key=last_seen, default={})
    if not newest:
        return NO_TROUBLE
    note = without_pod_name(newest.get("note") or "")
    return Trouble(suspect.kind, suspect.name, newest.get("reason") or "", note)


def last_seen(event: Manifest) -> str:
    """Old clients write the times of the old API, newer ones a series."""
    series = (event.get("series") or {}).get("lastObservedTime")
    told = series or event.get("deprecatedLastTimestamp") or event.get("eventTime")
    return str(told or event["metadata"]["creationTimestamp"])
