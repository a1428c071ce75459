"""Whether a vLLM server answers: asks it for one token. Of the standard library alone: a probe runs this file as it is.

vLLM's /health says 200 as soon as the port is open, even if the engine will die of its first request (seen: a head size
for which the CPU has no attention kernel). A refusal is no answer either, but for a model that generates no text.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- where one listens → where one asks
NOT_MADE_FOR_IT = (400, 422)  # the model or its server takes no such request, and says so after it knew the name
WAIT_SECONDS = 1


class Server(NamedTuple):
    """Where one asks for ``model``, with the key of one's own container."""

    host: str
    port: int
    model: str
    key: str | None = None
    tls: bool = False


def server_at(host: str, port: int, model: str, environ: Mapping[str, str], *, tls: bool = False) -> Server:
    """``host``: where it listens."""
    return Server(ANY_ADDRESS.get(host, host), port, model, environ.get("VLLM_API_KEY"), tls)


def connection_to(server: Server, seconds: float) -> http.client.HTTPConnection:
    """To one's own container: its certificate is of the Service's name, and nobody stands between."""
    if not server.tls:
        return http.client.HTTPConnection(server.host, server.port, timeout=seconds)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(server.host, server.port, timeout=seconds, context=context)


def ask(server: Server, path: str, body: object, seconds: float) -> tuple[int, bytes]:
    """HTTP status and body; raises OSError or HTTPException. Without a body it is a GET."""
    connection = connection_to(server, seconds)
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {server.key}"} if server.key else {})}
    try:
        if body is None:
            connection.request("GET", path, headers=headers)
        else:
            connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def no_answer(server: Server, seconds: float) -> str | None:
    """Why the model gives no answer within so many seconds; None if it does."""
    if server.key == "":
        return "the key VLLM_API_KEY is empty, so that the server would ask for none; correct the Secret"
    try:
        status, said = ask(server, "/v1/completions", {"model": server.model, "prompt": [0], "max_tokens": 1}, seconds)
        if status == 404 and b"error" not in said:  # no such path, which a wrong name would not say: it only pools
            status, said = ask(server, "/pooling", {"model": server.model, "input": [0]}, seconds)
        if status == 404 and b"error" not in said:
            status, said = ask(server, "/v1/models", None, seconds)
            if status == 200 and server.model not in [model["id"] for model in json.loads(said)["data"]]:
                status = 404
    except socket.timeout:  # noqa: UP041 -- another class before Python 3.10
        return f"a request for one token got no answer for {seconds:.0f} s"
    except ConnectionRefusedError:
        return "nothing listens yet"
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return f"a request for one token failed: {type(error).__name__}: {error}"
    if status == 200 or status in NOT_MADE_FOR_IT:
        return None
    if status == 401:
        return "HTTP 401: the server wants another key than VLLM_API_KEY"
    return (
        f"a request for one token of model {server.model} failed: HTTP {status}: {said[:300].decode(errors='replace')}"
    )


def main(seconds: float, server: Server) -> str | None:
    """Look until there is an answer, for so many seconds at most; the last reason why there is none."""
    deadline = time.monotonic() + seconds
    while True:
        problem = no_answer(server, max(1.0, deadline - time.monotonic()))
        if problem is None or time.monotonic() + WAIT_SECONDS >= deadline:
            return problem
        time.sleep(WAIT_SECONDS)


if __name__ == "__main__":
    inside, at, number, name, *more = sys.argv[1:]
    sys.exit(main(float(inside), server_at(at, int(number), name, os.environ, tls="https" in more)))
