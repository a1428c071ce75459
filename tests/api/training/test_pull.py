"""How rank 0 is asked, over a real socket of this machine."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aiohttp
import pytest

from llm_operator.kube.cache import Cache
from llm_operator.kube.plan import Key, Manifest
from llm_operator.kube.pull import ANSWER_BYTES, NoAnswerError, Puller, ask
from llm_trainer.protocol import PROGRESS_PORT, Progress

ADDRESS = "127.94.0.1"  # all of 127/8 is this machine; nothing else listens here
IPV6 = "::1"
KEY = Key("LLMTraining", "team", "bilingual")
GOOD = Progress(stage="base", attempt=1, step=7).model_dump_json(by_alias=True)


def pod(uid: str = "first") -> Manifest:
    metadata = {"name": f"rank-0-{uid}", "namespace": "team", "uid": uid, "resourceVersion": "1"}
    return {"metadata": metadata, "spec": {}, "status": {"podIP": ADDRESS}}


class Rank0(ThreadingHTTPServer):
    """Answers every request with ``status`` and ``body``; counts them."""

    status, body, encoding, asked = 200, GOOD.encode(), "identity", 0


class Rank0OnIPv6(Rank0):
    address_family = socket.AF_INET6


class Handler(BaseHTTPRequestHandler):
    server: Rank0

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(self.server.status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Encoding", self.server.encoding)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def rank_0() -> Iterator[Rank0]:
    yield from listening(Rank0, ADDRESS)


@pytest.fixture
def rank_0_on_ipv6() -> Iterator[Rank0]:
    yield from listening(Rank0OnIPv6, IPV6)


def listening(kind: type[Rank0], address: str) -> Iterator[Rank0]:
    server = kind((address, PROGRESS_PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def asked(address: str = ADDRESS) -> Progress:
    async def once() -> Progress:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            return await ask(session, address)

    return asyncio.run(once())


def test_an_answer(rank_0: Rank0) -> None:
    assert asked().step == 7


def test_an_answer_by_ipv6(rank_0_on_ipv6: Rank0) -> None:
    assert asked(IPV6).step == 7


@pytest.mark.parametrize(
    ("status", "body", "encoding", "why"),
    [
        (200, b"no JSON", "identity", "no progress"),
        (200, GOOD.encode() + b" " * ANSWER_BYTES, "identity", "more than 65,536 bytes"),
        (200, GOOD.encode(), "gzip", "no progress"),  # it is, and a small answer must not become a large one
        (302, b"see elsewhere", "identity", "HTTP status 302"),
        (500, b"", "identity", "HTTP status 500"),
    ],
    ids=["no JSON", "too long", "packed", "elsewhere", "broken"],
)
def test_what_is_no_progress_is_told(rank_0: Rank0, status: int, body: bytes, encoding: str, why: str) -> None:
    if encoding == "gzip":
        body = gzip.compress(body)
    rank_0.status, rank_0.body, rank_0.encoding = status, body, encoding
    with pytest.raises(NoAnswerError, match=why):
        asked()
    assert rank_0.asked == 1, "an answer that points elsewhere must not be followed"


def test_nobody_there_is_told() -> None:
    with pytest.raises(NoAnswerError, match="Connection refused; allow the operator's namespace"):
        asked()


async def test_every_pod_is_asked_for_itself_and_only_while_it_is_there(rank_0: Rank0) -> None:
    cache, woken = Cache(), asyncio.Queue[Key]()
    puller = Puller(cache, interval=0.01)
    cache.put("Pod", pod("first"))
    assert puller.follow(KEY, pod("first")).progress is None, "nobody was asked yet"
    pulling = asyncio.create_task(puller.run(woken.put_nowait))
    assert await woken.get() == KEY
    told = puller.follow(KEY, pod("first"))
    assert told.progress
    assert told.progress.step == 7
    cache.put("Pod", pod("second"))
    assert puller.follow(KEY, pod("second")).progress is None, "the word of another pod is void"
    assert await woken.get() == KEY
    for gone in ("first", "second"):
        cache.remove("Pod", pod(gone))
    while puller._poller._known:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    rank_0.asked = 0
    await asyncio.sleep(0.1)  # in which it would be asked ten times
    assert rank_0.asked == 0, "a pod that is gone must not be asked"
    pulling.cancel()
    await asyncio.wait({pulling})
