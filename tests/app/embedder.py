"""A real HTTP server that stands for vLLM's of an embedding model: texts of one meaning have one direction."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import dumps, loads
from typing import Any

import numpy as np

from llm_app.config import Embedding
from llm_app.words import words

MEANINGS = {"lubricate": "oil", "oiled": "oil", "crimson": "red", "warranty": "保証"}
DIMENSIONS = 64


def vector(text: str, seed: str, dimensions: int = DIMENSIONS) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The sum of a direction for each word's meaning."""
    made = np.full(dimensions, 1e-3)
    for word in words(text):
        digest = hashlib.sha256(f"{seed}{MEANINGS.get(word, word)}".encode()).digest()
        made += np.random.default_rng(int.from_bytes(digest[:8])).standard_normal(dimensions)
    return np.asarray(made * 3, dtype="<f4")


@dataclass
class EmbeddingServer:
    """``seed``: another one is another model. ``fails``: answers that come first. ``asked``: all texts."""

    url: str = ""
    seed: str = "one"
    dimensions: int = DIMENSIONS
    asked: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    fails: list[tuple[int, str]] = field(default_factory=list)
    after: int | None = None  # requests that are answered; then it falls over
    limit: int = 10_000  # characters of a text

    def settings(self, model: str = "sha256:1", **more: Any) -> Embedding:
        return Embedding(url=f"{self.url}/v1", name="embedder", model=model, **more)

    def answer(self, asked: Any) -> tuple[int, str]:
        if self.fails:
            return self.fails.pop(0)
        if self.after is not None:
            self.after -= 1
            if self.after < 0:
                return 500, "over"
        assert asked["encoding_format"] == "base64"
        texts = [text[: self.limit] if "truncate_prompt_tokens" in asked else text for text in asked["input"]]
        if any(len(text) > self.limit for text in texts):
            return 400, dumps({"error": {"message": "This model's maximum context length is 512 tokens"}})
        self.asked += texts
        rows = [vector(text, self.seed, self.dimensions).tobytes() for text in texts]
        data = [{"index": at, "embedding": base64.b64encode(row).decode()} for at, row in enumerate(rows)]
        return 200, dumps({"data": data[::-1]})


@contextmanager
def embedding_server() -> Iterator[EmbeddingServer]:
    """In a thread: an index builder has an event loop of its own."""
    state = EmbeddingServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement between head and body

        def do_POST(self) -> None:
            asked = loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.keys.append(self.headers.get("Authorization"))
            status, said = state.answer(asked)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said.encode())))
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
