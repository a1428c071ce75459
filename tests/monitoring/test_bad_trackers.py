"""A tracker's server that is away, silent, slow, full or refuses: one notice, and the training goes on."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from llm_trainer.runtime.progress import Board
from llm_trainer.tracking.start import Trackers, asked, environment
from tests.cluster.processes import wait
from tests.monitoring.trackers import SECONDS, Configure, libraries, stage, steps

__all__ = ["libraries", "stage"]


class Refusing:
    """Answers every connection in a way of its own, or not at all."""

    def __init__(self, answer: bytes | None, pause: float = 0.0) -> None:
        self.answer, self.pause = answer, pause  # seconds between two bytes
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()
        self.held: list[socket.socket] = []

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.held.append(connection)
            if self.answer is not None:
                connection.recv(65536)
                self._say(connection, self.answer)
                connection.close()

    def _say(self, connection: socket.socket, answer: bytes) -> None:
        if not self.pause:
            connection.sendall(answer)
            return
        with suppress(OSError):  # of who has gone
            for byte in answer:
                connection.sendall(bytes([byte]))
                time.sleep(self.pause)


ANSWERS = {
    "away": None,  # nobody listens
    "silent": None,  # takes the connection, and says nothing
    "refusing": b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "full": b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "no server of MLflow": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>",
}


@pytest.fixture(params=["away", "silent", *(pytest.param(name, marks=pytest.mark.release) for name in [*ANSWERS][2:])])
def bad_server(request: pytest.FixtureRequest) -> Iterator[str]:
    server = Refusing(ANSWERS[request.param])
    if request.param == "away":
        server.listener.close()
    yield server.uri
    server.listener.close()


def test_a_bad_server_is_one_notice_and_keeps_nobody_waiting(
    stage: Configure, bad_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")  # what a user sets counts; ours is 10
    board = Board("base", 1)
    config = stage({"mlflow": {"uri": bad_server}})
    began = time.monotonic()
    trackers = Trackers(config, board)
    steps(config, 1, 200)
    assert time.monotonic() - began < 20, "nobody waits for it"
    wait("the notice", lambda: board.progress.notices != [], SECONDS)
    began = time.monotonic()
    trackers.end(5)
    assert time.monotonic() - began < 15
    (notice,) = board.progress.notices
    assert notice.reason == "TrackerFailed"
    assert "spec.tracking[0].mlflow" in notice.message
    assert "the training goes on" in notice.message


# As follow.main(), with what takes time imported before: a server is asked when it begins to count.
IMPATIENT = """
from mlflow import MlflowClient
from llm_trainer.tracking import follow
follow.SLOW_SECONDS = 2
follow.main()
"""


@pytest.mark.release  # imports mlflow once more
def test_a_server_whose_answer_never_ends_is_told(stage: Configure) -> None:
    """A byte at a time: no library's timeout sees it, as it waits for each byte anew."""
    server = Refusing(b"HTTP/1.1 200 OK\r\nX-Never: " + b"x" * 10_000, pause=0.2)
    config = stage({"mlflow": {"uri": server.uri}})
    (tracker,) = config.tracking
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment(tracker, 0),
    )  # fmt: skip
    try:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(asked(config, tracker)) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "what it is told is not taken, for 2 s now\n"
    finally:
        process.kill()
        process.communicate()
        server.listener.close()


class Half(BaseHTTPRequestHandler):
    """A server of MLflow that makes runs and has no room for what they tell."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.tell(200, {"experiment": {"experiment_id": "1", "name": "team/chat", "lifecycle_stage": "active"}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        what = self.path.rpartition("/")[2]
        self.asked.append(what)
        run = {"info": {"run_id": "r1", "experiment_id": "1", "status": "RUNNING"}, "data": {}}
        self.tell(*((200, {"run": run}) if what == "create" else (507, {"message": "no room"})))

    def tell(self, status: int, body: object) -> None:
        self.send_response(status)
        text = json.dumps(body).encode()
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.mark.release  # imports mlflow once more
def test_what_is_refused_makes_one_run_however_often_it_is_tried(stage: Configure) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Half)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Half.asked.clear()
    board, config = Board("base", 1), stage({"mlflow": {"uri": f"http://127.0.0.1:{server.server_port}"}})
    trackers = Trackers(config, board)
    steps(config, 1, 3)
    try:
        wait("it is tried again", lambda: Half.asked.count("log-batch") > 2, SECONDS)
    finally:
        trackers.end(0)
        server.shutdown()
        server.server_close()
    assert Half.asked.count("create") == 1, Half.asked
    assert "no room" in board.progress.notices[0].message
