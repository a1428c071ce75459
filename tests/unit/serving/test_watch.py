"""When the launcher gives vLLM up. A real engine that is stopped: tests/e2e/test_serving_image.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llm_server.first_token import Server
from llm_server.watch import Watch

STALL_SECONDS = 0.3
ANSWERED = "answered"
STEPS = 'vllm:iteration_tokens_total_count{engine="0",model_name="x"} '
ASLEEP = 'vllm:engine_sleep_state{engine="0",model_name="x",sleep_state="awake"} 0.0\n'


class Engine:
    """Answers a completion unless it hangs, and says how many steps it made."""

    def __init__(self, metrics: Callable[[], str]) -> None:
        self.metrics = metrics
        self.hangs = threading.Event()
        self.over = threading.Event()
        self.asked = 0


@contextmanager
def serving(engine: Engine) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            engine.asked += 1
            if engine.hangs.is_set():
                engine.over.wait()
            self.answer("{}")

        def do_GET(self) -> None:
            self.answer(engine.metrics())

        def answer(self, text: str) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    try:
        yield Server("127.0.0.1", httpd.server_port, model="x")
    finally:
        engine.over.set()
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def watched(server: Server, startup: float) -> tuple[Watch, list[str], threading.Thread]:
    told: list[str] = []
    watch = Watch(server, startup, STALL_SECONDS, told.append, lambda: told.append(ANSWERED))
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    return watch, told, thread


def test_a_first_request_that_never_ends() -> None:
    engine = Engine(lambda: "")
    engine.hangs.set()
    with serving(engine) as server:
        watch, told, thread = watched(server, startup=1)
        thread.join(60)
    assert not thread.is_alive()
    assert not watch.started
    (said,) = told
    assert "no answer within spec.startupTimeoutSeconds 1: a request for one token got no answer" in said


def test_an_engine_that_hangs_later() -> None:
    engine = Engine(lambda: STEPS + "7.0\n")
    with serving(engine) as server:
        watch, told, thread = watched(server, startup=60)
        while engine.asked < 3:  # the first token, and twice as an idle one
            thread.join(0.05)
        assert watch.started
        assert told == [ANSWERED], "idle is no hang"
        engine.hangs.set()
        thread.join(60)
    assert not thread.is_alive()
    _, said = told
    assert "the engine made no step for" in said
    assert not watch.started, "it leaves the Service"


@pytest.mark.parametrize("metrics", ["other 1\n", ASLEEP + STEPS + "7.0\n"], ids=["no figures", "asleep"])
def test_what_can_not_be_seen_is_no_hang(metrics: str) -> None:
    """Without figures a long queue can't be told from a hang; and who sleeps makes no steps."""
    looks = 0

    def tell() -> str:
        nonlocal looks
        looks += 1
        return metrics

    engine = Engine(tell)
    with serving(engine) as server:
        _, told, thread = watched(server, startup=60)
        while looks < 8:
            thread.join(0.05)
            assert thread.is_alive(), told
        assert engine.asked == 1, "it is not asked"
        assert told == [ANSWERED]
