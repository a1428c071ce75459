"""Rank 0 of every training, and the pod that fetches for a serving, are asked for their progress, outside of passes."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp
from pydantic import ValidationError

from llm_operator.kube.cache import Cache
from llm_operator.kube.kinds import POD
from llm_operator.kube.plan import GoneError, Key, Manifest
from llm_operator.kube.poller import Poller, Wake
from llm_trainer.protocol import PROGRESS_PORT, Message, Progress

ANSWER_SECONDS = 2.0  # an answer that takes longer is none
ANSWER_BYTES = 65_536  # nor is one that is longer: the image is the user's, who knows what answers
REQUESTS_AT_ONCE = 32
REQUESTS_PER_SECOND = 100.0  # of 1,000 trainings and fewer, each is asked every 10 s
TRIES = 3  # that fail in a row before it is said; from then on the pause between them doubles
LONGEST_PAUSE_SECONDS = 120.0
STARTING_SECONDS = 300.0  # for which a trainer may refuse connections: it listens only when it has imported all

REFUSED = os.strerror(errno.ECONNREFUSED)
Told = TypeVar("Told", bound=Message)

NO_PROGRESS = "is spec.image a trainer image of this operator?"
NO_WAY = f"allow the operator's namespace in your NetworkPolicy (TCP port {PROGRESS_PORT})"


@dataclass(frozen=True)
class Rank0:
    """The first pod of an attempt."""

    namespace: str
    pod: str
    uid: str
    address: str


@dataclass(frozen=True)
class Word:
    """What is known of a rank 0. Two words that a pass could not tell apart are equal."""

    progress: Progress | None = None  # the last that it told
    silence: str = ""  # why it can't be asked and what to do, once that is more than a passing failure
    failures: int = field(default=0, compare=False)  # in a row


class NoAnswerError(Exception):
    """Rank 0 could not be asked: why, and what to do."""


def rank_0(pod: Manifest | None) -> Rank0 | None:
    """Where to ask; None while the pod has no address."""
    if pod is None or not (address := (pod.get("status") or {}).get("podIP")):
        return None
    metadata = pod["metadata"]
    return Rank0(metadata["namespace"], metadata["name"], metadata["uid"], address)


def url(address: str, port: int = PROGRESS_PORT, path: str = "progress") -> str:
    host = f"[{address}]" if ":" in address else address  # IPv6
    return f"http://{host}:{port}/{path}"


def session() -> aiohttp.ClientSession:
    """Of who asks many pods."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    connections = aiohttp.TCPConnector(force_close=True)  # else so many would stay open as there are pods
    return aiohttp.ClientSession(timeout=timeout, connector=connections, auto_decompress=False)


def unanswered(before: Word, why: str, interval: float) -> Word:
    """After one more request that failed. A trainer that was never heard of may still be starting."""
    failures = before.failures + 1
    starting = before.progress is None and why.startswith(REFUSED)
    tries = max(TRIES, round(STARTING_SECONDS / interval)) if starting else TRIES
    silent = bool(before.silence) or failures >= tries
    return Word(before.progress, why if silent else "", failures)


def pause(word: Word, interval: float) -> float:
    """Seconds until the next request."""
    if not word.silence:
        return interval
    if word.progress is None and word.silence.startswith(REFUSED):
        return interval  # it may still be starting
    doubled = interval * 2.0 ** min(word.failures - TRIES + 1, 16)
    return max(interval, min(doubled, LONGEST_PAUSE_SECONDS))


class Puller:
    """Keeps the last word of each rank 0 that is followed. ``interval`` in seconds; ``name``: of its workers."""

    def __init__(self, cache: Cache, interval: float, name: str = "progress") -> None:
        self._cache = cache
        self._interval = interval
        self._poller = Poller(name, self._next, Word(), count=REQUESTS_AT_ONCE, per_second=REQUESTS_PER_SECOND)
        self._session: aiohttp.ClientSession

    def follow(self, key: Key, pod: Manifest | None) -> Word:
        """What this pod of rank 0 told last, which is asked from now on; None: nobody is."""
        return self._poller.follow(key, rank_0(pod))

    async def run(self, wake: Wake) -> None:
        """Until cancelled. Wakes a training whose rank 0 has news, fell silent or speaks again."""
        async with session() as self._session:
            await self._poller.run(wake)

    async def _next(self, target: Rank0, before: Word) -> tuple[Word, float]:
        pod = self._cache.get(POD.name, target.namespace, target.pod)
        if pod is None or pod["metadata"]["uid"] != target.uid:
            raise GoneError
        try:
            word = Word(await ask(self._session, target.address))
        except NoAnswerError as error:
            word = unanswered(before, str(error), self._interval)
        return word, pause(word, self._interval)


async def ask(session: aiohttp.ClientSession, address: str) -> Progress:
    """One request. Raises NoAnswerError."""
    return await told(session, url(address), Progress)


async def told(session: aiohttp.ClientSession, at: str, kind: type[Told]) -> Told:
    """What a pod of ours says at this URL. Raises NoAnswerError."""
    try:
        async with session.get(at, allow_redirects=False) as answer:
            if answer.status != 200:
                raise NoAnswerError(f"HTTP status {answer.status}; {NO_PROGRESS}")
            body = bytearray()
            async for chunk in answer.content.iter_chunked(ANSWER_BYTES):
                body += chunk
                if len(body) > ANSWER_BYTES:
                    raise NoAnswerError(f"an answer of more than {ANSWER_BYTES:,} bytes; {NO_PROGRESS}")
            return kind.model_validate_json(bytes(body))
    except TimeoutError:
        raise NoAnswerError(f"timeout after {ANSWER_SECONDS:g} s; {NO_WAY}") from None
    except aiohttp.ClientConnectorError as error:
        why = os.strerror(error.os_error.errno) if error.os_error.errno else "no connection"
        raise NoAnswerError(f"{why}; {NO_WAY}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        what = ".".join(str(part) for part in first["loc"]) or "it"
        raise NoAnswerError(f"an answer that is no progress ({what}: {first['msg']}); {NO_PROGRESS}") from None
    except aiohttp.ClientError as error:
        raise NoAnswerError(f"an answer that is no progress ({type(error).__name__}); {NO_PROGRESS}") from None
