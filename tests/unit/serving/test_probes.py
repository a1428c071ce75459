"""What the program that asks for a first token says of a server's answers, and how long the kubelet waits for one."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from llm_operator.serving.probes import launcher_probes, probes
from llm_server.first_token import Server
from llm_server.watch import server_of

NO_SUCH_MODEL = {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError"}}
NO_SUCH_PATH = {"detail": "Not Found"}
MODELS = {"data": [{"id": "chat"}]}
Answers = Mapping[str, tuple[int, object]]


@contextmanager
def server(answers: Answers, asked: list[tuple[str, Any, str | None]]) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.path, json.loads(body or "null"), self.headers["Authorization"]))
            code, said = answers.get(self.path, (404, NO_SUCH_PATH))
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        do_GET = do_POST  # noqa: N815 -- the name is the base's

        def log_message(self, *arguments: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    try:
        yield httpd.server_port
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def probe(port: int, *, tls: bool = False, **environ: str) -> subprocess.CompletedProcess[str]:
    """As the kubelet runs it in a container of any image."""
    command = probes("0.0.0.0", port, "chat", 1800, tls=tls)["startupProbe"]["exec"]["command"]
    command[0], command[5] = sys.executable, "0.5"
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ)


@pytest.mark.parametrize(
    ("answers", "paths"),
    [
        ({"/v1/completions": (200, {})}, ["/v1/completions"]),
        ({"/v1/completions": (400, {"error": {}})}, ["/v1/completions"]),
        ({"/pooling": (200, {})}, ["/v1/completions", "/pooling"]),
        ({"/v1/models": (200, MODELS)}, ["/v1/completions", "/pooling", "/v1/models"]),
    ],
    ids=["a token", "a model without completions", "a model that embeds", "a model of neither"],
)
def test_an_answer(answers: Answers, paths: list[str]) -> None:
    asked: list[tuple[str, Any, str | None]] = []
    with server(answers, asked) as port:
        done = probe(port)
    assert done.returncode == 0, done.stderr
    assert [path for path, *_ in asked] == paths
    assert asked[0][1] == {"model": "chat", "prompt": [0], "max_tokens": 1}


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"/v1/completions": (401, {"error": "Unauthorized"})}, "another key than VLLM_API_KEY"),
        ({"/v1/completions": (404, NO_SUCH_MODEL)}, "of model chat failed: HTTP 404: "),
        ({"/v1/completions": (500, {})}, "HTTP 500"),
        ({"/v1/completions": (503, {})}, "HTTP 503"),
        ({"/v1/completions": (429, {})}, "HTTP 429"),
        ({"/pooling": (500, {})}, "HTTP 500"),
        ({"/v1/models": (200, {"data": [{"id": "other"}]})}, "HTTP 404"),
    ],
    ids=["another key", "another name", "a dead engine", "not yet", "too busy", "a dead pooler", "another model"],
)
def test_no_answer(answers: Answers, says: str) -> None:
    with server(answers, []) as port:
        done = probe(port)
    assert done.returncode == 1
    assert says in done.stderr


def test_the_key_is_that_of_its_container() -> None:
    asked: list[tuple[str, Any, str | None]] = []
    with server({"/v1/completions": (200, {})}, asked) as port:
        probe(port, VLLM_API_KEY="from-a-secret")
        probe(port)
        empty = probe(port, VLLM_API_KEY="")
    assert [key for *_, key in asked] == ["Bearer from-a-secret", None]
    assert "VLLM_API_KEY is empty, so that the server would ask for none" in empty.stderr
    assert empty.returncode == 1, "a pod that lets everybody in where a key is wanted is never ready"


def test_a_server_that_does_not_listen() -> None:
    with server({}, []) as port:
        pass
    done = probe(port)
    assert (done.returncode, done.stderr.strip()) == (1, "nothing listens yet")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["/m"], Server("127.0.0.1", 8000, "/m", "sesame")),
        (["/m", "--host=::", "--port", "1"], Server("::1", 1, "/m", "sesame")),
        (
            ["/m", "--host=10.0.0.1", "--served_model_name", "a/b", "b", "--seed=1"],
            Server("10.0.0.1", 8000, "a/b", "sesame"),
        ),
    ],
)
def test_where_a_server_listens(arguments: list[str], expected: Server) -> None:
    assert server_of(arguments, {"VLLM_API_KEY": "sesame"}) == expected


@pytest.mark.parametrize("timeout", [10, 59, 60, 61, 70, 100, 121, 1800, 3601, 86_399, 86_400])
def test_the_startup_timeout_is_in_seconds(timeout: int) -> None:
    """A look that takes longer than the time to the next makes more of it: 1,800 s were six hours."""
    another_image = probes("0.0.0.0", 8000, "chat", timeout)
    for found, latest in ((another_image, timeout + 5), (launcher_probes(timeout), timeout + 32)):
        startup = found["startupProbe"]
        assert startup["timeoutSeconds"] <= startup["periodSeconds"]
        assert timeout <= startup["failureThreshold"] * startup["periodSeconds"] <= latest
