"""Why pods of an attempt are missing. The Job controller tells it by events alone: these are read outside of passes."""

from __future__ import annotations

from dataclasses import dataclass

from llm_operator.kube.cache import Cache
from llm_operator.kube.client import ApiError, Client
from llm_operator.kube.kinds import EVENT, JOB
from llm_operator.kube.plan import GoneError, Key, Manifest
from llm_operator.kube.pods import without_pod_name
from llm_operator.kube.poller import Poller, Wake

FAILED_CREATE = "FailedCreate"  # the Job controller's own word
LOOK_SECONDS = 10.0
REQUESTS_AT_ONCE = 4
REQUESTS_PER_SECOND = 20.0  # API servers keep events in no cache: each request reads all of a namespace from etcd


@dataclass(frozen=True)
class ShortJob:
    """A Job that lacks pods."""

    namespace: str
    name: str
    uid: str


class FailedCreates:
    """Keeps what the Job controller last said of pods that it could not make."""

    def __init__(self, cache: Cache, client: Client) -> None:
        self._cache = cache
        self._client = client
        self._poller: Poller[ShortJob, str | None] = Poller(
            "events", self._next, None, count=REQUESTS_AT_ONCE, per_second=REQUESTS_PER_SECOND
        )

    def follow(self, key: Key, job: Manifest | None) -> str | None:
        """Why this Job lacks pods; None while that was not read. ``job`` is None where none lacks any."""
        metadata = job["metadata"] if job else None
        target = ShortJob(metadata["namespace"], metadata["name"], metadata["uid"]) if metadata else None
        word = self._poller.follow(key, target)
        return word if target else ""

    async def run(self, wake: Wake) -> None:
        """Until cancelled. Wakes a training whose Job controller says something else."""
        await self._poller.run(wake)

    async def _next(self, target: ShortJob, before: str | None) -> tuple[str | None, float]:
        job = self._cache.get(JOB.name, target.namespace, target.name)
        if job is None or job["metadata"]["uid"] != target.uid:
            raise GoneError
        selector = f"regarding.uid={target.uid},reason={FAILED_CREATE}"
        try:
            found = await self._client.get(EVENT.path(target.namespace), {"fieldSelector": selector})
        except ApiError:
            return before, LOOK_SECONDS
        newest: Manifest = max(found["items"], key=last_seen, default={})
        return without_pod_name(newest.get("note", "")), LOOK_SECONDS


def last_seen(event: Manifest) -> str:
    """The Job controller still writes its events by the old API."""
    return str(event.get("deprecatedLastTimestamp") or event["metadata"]["creationTimestamp"])
