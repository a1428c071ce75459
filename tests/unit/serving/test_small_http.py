"""Strangers at the port of a pod's probes, or of a training's progress: they keep nobody from the answer."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from llm_server import small_http
from llm_server.first_token import Server
from llm_server.startup import Startup
from llm_server.watch import Watch, serve
from llm_trainer.runtime import progress

SECONDS = 30


@pytest.fixture(params=["probes", "progress"])
def port(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(small_http, "CONNECTIONS", 4)
    made: list[small_http.SmallHTTPServer] = []
    if request.param == "probes":
        made.append(serve(Watch(Server("127.0.0.1", 1, "m"), 1, 1, print, print), Startup(), "127.0.0.1", 0))
    else:
        monkeypatch.setenv("LLM_PROGRESS_PORT", "0")

        class Kept(progress.Server):
            def __init__(self, *given: object) -> None:
                super().__init__(*given)  # type: ignore[arg-type]
                made.append(self)

        monkeypatch.setattr(progress, "Server", Kept)
        progress.Board("base", 1).serve()
    yield int(made[0].server_address[1])
    made[0].shutdown()
    made[0].server_close()


def ask(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", "/live")
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_oldest_goes_and_who_asks_is_answered(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    before = threading.active_count()
    strangers = [socket.create_connection(("127.0.0.1", port), SECONDS) for _ in range(40)]
    for stranger in strangers[::2]:
        stranger.sendall(b"GET /live HT")
    assert ask(port) in (200, 404)
    assert strangers[0].recv(1) == b"", "closed"
    for stranger in strangers[1:20]:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
        stranger.close()
    assert ask(port) in (200, 404)
    deadline = time.monotonic() + SECONDS
    while threading.active_count() > before + 4:
        assert time.monotonic() < deadline, "a thread for each stranger"
        time.sleep(0.05)
    assert "Traceback" not in capfd.readouterr().err
    for stranger in strangers:
        stranger.close()


def test_who_says_nothing_is_let_go(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_http, "SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", port), SECONDS) as stranger:
        assert stranger.recv(1) == b""
