"""How long a serving's newest pod took until it answered, by parts.

The fetching of a cache of its own stands in the pod's status; all else the launcher of vLLM tells, which is asked once:
then the status has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from llm_operator.api.serving import ServingStartup
from llm_operator.kube.cache import Cache
from llm_operator.kube.kinds import POD
from llm_operator.kube.plan import GoneError, Key, Manifest
from llm_operator.kube.pods import container_status, holds, init_statuses, is_leaving, seconds_between
from llm_operator.kube.poller import Poller, Wake
from llm_operator.kube.pull import NoAnswerError, session, told, url
from llm_operator.serving.fleet import age_of
from llm_operator.serving.names import CONTAINER, FETCHER, LAUNCHER_PORT
from llm_trainer.protocol import ServingStart

REQUESTS_AT_ONCE = 8
REQUESTS_PER_SECOND = 20.0
PAUSES = (2.0, 10.0, 30.0, 120.0, 600.0)  # seconds after requests that failed in a row
LONGEST_PAUSE_SECONDS = 3600.0


@dataclass(frozen=True)
class Started:
    """A pod's container of vLLM, since its last restart."""

    namespace: str
    pod: str
    uid: str
    restarts: int
    address: str


@dataclass(frozen=True)
class Word:
    """What its launcher has told."""

    start: ServingStart | None = None
    failures: int = field(default=0, compare=False)  # in a row


class Startups:
    """Keeps what the launchers told that are followed."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._poller: Poller[Started, Word] = Poller(
            "startups", self._next, Word(), count=REQUESTS_AT_ONCE, per_second=REQUESTS_PER_SECOND
        )
        self._session: aiohttp.ClientSession

    def follow(self, key: Key, started: Started | None) -> ServingStart | None:
        """What this launcher has told; from now on it is asked. None: nobody is."""
        return self._poller.follow(key, started).start

    async def run(self, wake: Wake) -> None:
        """Until cancelled. Wakes a serving whose launcher has told."""
        async with session() as self._session:
            await self._poller.run(wake)

    async def _next(self, target: Started, before: Word) -> tuple[Word, float]:
        pod = self._cache.get(POD.name, target.namespace, target.pod)
        if pod is None or started_of(pod) != target:
            raise GoneError
        if before.start:
            return before, LONGEST_PAUSE_SECONDS
        try:
            at = url(target.address, LAUNCHER_PORT, "start")
            return Word(await told(self._session, at, ServingStart)), LONGEST_PAUSE_SECONDS
        except NoAnswerError:  # of an older launcher, or without a way to it: then it isn't told
            pause = PAUSES[before.failures] if before.failures < len(PAUSES) else LONGEST_PAUSE_SECONDS
            return Word(failures=before.failures + 1), pause


def started_of(pod: Manifest) -> Started | None:
    """None while it has no address."""
    address = (pod.get("status") or {}).get("podIP")
    if not address:
        return None
    metadata, restarts = pod["metadata"], container_status(pod, CONTAINER).get("restartCount")
    counted = restarts if isinstance(restarts, int) else 0
    return Started(metadata["namespace"], metadata["name"], metadata["uid"], counted, str(address))


def newest_started(pods: Sequence[Manifest]) -> Started | None:
    """The youngest pod that answers."""
    ready = [pod for pod in pods if holds(pod, "Ready") and not is_leaving(pod)]
    return started_of(max(ready, key=age_of)) if ready else None


def is_told(old: ServingStartup | None, started: Started) -> bool:
    return old is not None and (old.pod, old.restarts) == (started.pod, started.restarts)


def startup_of(
    pods: Sequence[Manifest], started: Started | None, start: ServingStart | None, old: ServingStartup | None
) -> ServingStartup | None:
    """For the status; what was told last stays until there is news, as it names its pod."""
    if started is None or start is None:
        return old
    pod = next((pod for pod in pods if pod["metadata"]["uid"] == started.uid), None)
    parts = {name: rounded(value) for name, value in start.model_dump().items()}
    return ServingStartup(
        pod=started.pod, restarts=started.restarts, fetch_seconds=fetch_seconds(pod) if pod else None, **parts
    )


def rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def fetch_seconds(pod: Manifest) -> float | None:
    """Of its init containers that fetch, which run one after another; None of a pod without."""
    ends = [(status.get("state") or {}).get("terminated") for status in init_statuses(pod) if fetches(status)]
    spans = [seconds_between(end) if end else None for end in ends]
    known = [span for span in spans if span is not None]
    return sum(known) if known and len(known) == len(spans) else None


def fetches(status: Mapping[str, Any]) -> bool:
    return str(status["name"]).startswith(f"{FETCHER}-")
