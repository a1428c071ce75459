"""How rank 0 is asked, over a real socket of this machine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest.mock import Mock

import pytest

from llm_operator.kube.cache import Cache
from llm_operator.kube.client import Client
from llm_operator.kube.plan import Key
from llm_operator.training.observe import PROGRESS_BYTES, Observer
from llm_trainer.protocol import PROGRESS_PORT, Progress

ADDRESS = "127.94.0.1"  # all of 127/8 is this machine; nothing else listens here
KEY = Key("LLMTraining", "team", "bilingual")
POD = {"metadata": {"name": "rank-0"}, "status": {"podIP": ADDRESS}}
GOOD = Progress(stage="base", attempt=1, step=7).model_dump_json(by_alias=True)


class Rank0(ThreadingHTTPServer):
    """Answers every request with ``status`` and ``body``; counts them."""

    status, body, asked = 200, GOOD, 0


class Handler(BaseHTTPRequestHandler):
    server: Rank0

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(self.server.status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def rank_0() -> Iterator[Rank0]:
    server = Rank0((ADDRESS, PROGRESS_PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def asked(times: int = 1) -> Progress | None:
    async def ask() -> Progress | None:
        observer = Observer(Cache(), Mock(spec=Client), "trainer:1", progress_interval=600)
        try:
            for _ in range(times):
                told = await observer._progress(KEY, POD)
            return told
        finally:
            if observer._session:
                await observer._session.close()

    return asyncio.run(ask())


def test_rank_0_is_asked_once_in_an_interval(rank_0: Rank0) -> None:
    told = asked(times=3)
    assert told
    assert told.step == 7
    assert rank_0.asked == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, "no JSON"), (200, GOOD + " " * PROGRESS_BYTES), (302, "see elsewhere"), (500, "")],
    ids=["no JSON", "too long", "elsewhere", "broken"],
)
def test_what_is_no_progress_is_no_news(rank_0: Rank0, status: int, body: str) -> None:
    rank_0.status, rank_0.body = status, body
    assert asked() is None
    assert rank_0.asked == 1, "an answer that points elsewhere must not be followed"


def test_nobody_there_is_no_news() -> None:
    assert asked() is None
