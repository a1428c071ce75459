"""What the startup probe's program says of a server's answers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from llm_operator.serving.probes import FIRST_REQUEST


@contextmanager
def server(code: int, asked: list[object]) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(code)
            self.end_headers()

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    try:
        yield httpd.server_port
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def probe(port: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", "-c", FIRST_REQUEST, str(port), "chat"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("code", [200, 401, 404])
def test_an_answer_and_a_refusal_are_signs_of_life(code: int) -> None:
    asked: list[object] = []
    with server(code, asked) as port:
        assert probe(port).returncode == 0
    assert asked == [{"model": "chat", "prompt": [0], "max_tokens": 1}]


def test_an_engine_that_dies_of_its_first_request_is_not_ready() -> None:
    with server(500, []) as port:
        done = probe(port)
    assert (done.returncode, done.stderr.strip()) == (
        1,
        "the first request failed: HTTP 500",
    )


def test_a_server_that_does_not_listen_is_not_ready() -> None:
    with server(200, []) as port:
        pass
    done = probe(port)
    assert done.returncode == 1
    assert "not listening yet" in done.stderr
