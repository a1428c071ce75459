"""Four hundred pods whose rank 0 answers badly on purpose: others are asked meanwhile, and nothing piles up."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from llm_operator.kube.cache import Cache
from llm_operator.kube.plan import Key, Manifest
from llm_operator.kube.pull import ANSWER_BYTES, REQUESTS_AT_ONCE, Puller
from llm_trainer.protocol import PROGRESS_PORT, Progress

SLOW, GOOD = "127.9.4.1", "127.9.4.2"
PODS = 400
ENOUGH = 20  # answers of the good one
MEMORY_KIB = 64 * 1024
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ANSWER = Progress(stage="base", attempt=1, phase="Training", step=7).model_dump_json(by_alias=True).encode()
BOMB = gzip.compress(b" " * (200 << 20), compresslevel=1)

Answer = Callable[[], Iterator[bytes]]


def drip() -> Iterator[bytes]:
    yield HEAD + b"Content-Length: 10000\r\n\r\n"
    yield from itertools.repeat(b" ")


def endless() -> Iterator[bytes]:
    yield HEAD + b"\r\n"
    yield from itertools.repeat(b" " * ANSWER_BYTES)


def endless_head() -> Iterator[bytes]:
    yield HEAD
    yield from itertools.repeat(b"X-More: " + b"a" * 1000 + b"\r\n")


def not_yet() -> Iterator[bytes]:
    yield from itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n")


def silent() -> Iterator[bytes]:
    yield from itertools.repeat(b"")


def elsewhere() -> Iterator[bytes]:
    place = f"http://{SLOW}:{PROGRESS_PORT}/progress"
    yield f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()


def bomb() -> Iterator[bytes]:
    yield HEAD + f"Content-Encoding: gzip\r\nContent-Length: {len(BOMB)}\r\n\r\n".encode() + BOMB


def deep() -> Iterator[bytes]:
    yield HEAD + b"Content-Length: 60000\r\n\r\n" + b"[" * 60_000


ANSWERS: tuple[Answer, ...] = (drip, endless, endless_head, not_yet, silent, elsewhere, bomb, deep)


class Server:
    """``asked`` counts requests, ``most`` is how many connections were open at a time."""

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        self._answers = itertools.cycle(answers)
        self.asked = self.open = self.most = 0

    @asynccontextmanager
    async def listening(self, address: str) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, address, PROGRESS_PORT)
        try:
            yield
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await reader.readuntil(b"\r\n\r\n")
            for part in next(self._answers)():
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.05 if len(part) < 2 else 0.001)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


def pod(namespace: str, name: str, address: str) -> Manifest:
    metadata = {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}", "resourceVersion": "1"}
    return {"metadata": metadata, "spec": {}, "status": {"podIP": address}}


def good() -> Iterator[bytes]:
    yield HEAD + f"Content-Length: {len(ANSWER)}\r\n\r\n".encode() + ANSWER


async def test_whoever_answers_is_asked_while_hundreds_of_anothers_answer_badly(
    record_property: Callable[[str, object], None],
) -> None:
    cache, slow, fine = Cache(), Server(ANSWERS), Server((good,))
    puller = Puller(cache, interval=0.01)
    for number in range(PODS):
        cache.put("Pod", pod("enemy", f"p-{number}", SLOW))
        puller.follow(Key("LLMTraining", "enemy", f"t-{number}"), pod("enemy", f"p-{number}", SLOW))
    cache.put("Pod", pod("team", "p", GOOD))
    puller.follow(key := Key("LLMTraining", "team", "t"), pod("team", "p", GOOD))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with slow.listening(SLOW), fine.listening(GOOD):
        pulling = asyncio.create_task(puller.run(lambda _: None))
        while fine.asked < ENOUGH and slow.asked < PODS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        asked = slow.asked
        told = puller.follow(key, pod("team", "p", GOOD)).progress
        pulling.cancel()
        await asyncio.wait({pulling})
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    record_property(
        "requests", f"{fine.asked} of one and {asked} of {PODS}, at most {slow.most} open, {grown} KiB more"
    )
    assert fine.asked >= ENOUGH, "its turn comes between those of the others"
    assert told
    assert told.step == 7
    assert slow.most <= 2 * REQUESTS_AT_ONCE, "a connection that the operator has closed counts until it is noticed"
    assert grown < MEMORY_KIB


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.__name__)
async def test_each_bad_answer_is_none(answer: Answer) -> None:
    cache, server = Cache(), Server((answer,))
    puller = Puller(cache, interval=0.01)
    key, target = Key("LLMTraining", "team", "t"), pod("team", "p", SLOW)
    cache.put("Pod", target)
    puller.follow(key, target)
    async with server.listening(SLOW):
        woken = asyncio.Event()
        pulling = asyncio.create_task(puller.run(lambda _: woken.set()))
        await woken.wait()
        word = puller.follow(key, target)
        pulling.cancel()
        await asyncio.wait({pulling})
    assert word.progress is None
    assert word.silence
