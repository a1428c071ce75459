"""What of vLLM's server the pod lets in: an ASGI middleware that the launcher puts before all others.

vLLM 0.31 asks for its key under /v1, /v2, /inference and /cohere alone: /invocations runs any request without it, and
so do /tokenize, /pooling, /score and more. Here a path is on a list or it isn't there, so that what another version
adds is closed until somebody has read what it does; and every path on the list wants the key, but /health.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MIDDLEWARE = "llm_server.door.Door"  # as --middleware takes it
KEY = "VLLM_API_KEY"
METRICS_OPEN = "LLM_SERVER_METRICS_WITHOUT_KEY"
HEALTH, METRICS = "/health", "/metrics"
# Those that answer requests, and tell of the model. No path that renders, profiles, scales, loads or only has another
# name; a test in the image compares them with those that vLLM has.
PATHS = frozenset({
    HEALTH, METRICS, "/ping", "/version", "/load",
    "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/responses",
    "/v1/messages", "/v1/messages/count_tokens",
    "/v1/embeddings", "/v2/embed", "/pooling", "/classify",
    "/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank",
    "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/realtime",
    "/tokenize", "/detokenize",
})  # fmt: skip
RESPONSE = re.compile(r"/v1/responses/[-\w]+(/cancel)?", re.ASCII)
NOT_FOUND, UNAUTHORIZED = 404, 401
SAID = {
    NOT_FOUND: "not among the paths that this server lets in",
    UNAUTHORIZED: "the API key is missing or another one: send it as Authorization: Bearer KEY",
}
POLICY_VIOLATION = 1008  # of a WebSocket


def lets_in(path: str) -> bool:
    return path in PATHS or RESPONSE.fullmatch(path) is not None


class Door:
    """vLLM makes it without arguments, in each process that answers requests."""

    def __init__(self, app: App) -> None:
        self._app = app
        key = os.environ.get(KEY)
        self._key = digest(key.encode()) if key else None
        self._open = {HEALTH, METRICS} if os.environ.get(METRICS_OPEN) == "1" else {HEALTH}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lifespan events are of no request."""
        refusal = None if scope["type"] == "lifespan" else self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": SAID[refusal]})
        else:
            body = json.dumps({"detail": SAID[refusal]}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": refusal, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> int | None:
        path = inner_path(scope)
        if not lets_in(path):
            return NOT_FOUND
        if self._key is None or path in self._open or is_preflight(scope):
            return None
        return None if hmac.compare_digest(digest(sent_key(scope)), self._key) else UNAUTHORIZED


def is_preflight(scope: Scope) -> bool:
    """A browser's question, without a key, for what it may send: vLLM's CORS layer answers it and passes nothing on."""
    names = [name.lower() for name, _ in scope["headers"]]
    return scope.get("method") == "OPTIONS" and {b"origin", b"access-control-request-method"} <= set(names)


def inner_path(scope: Scope) -> str:
    """Without vLLM's --root-path, as its router takes it."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "").rstrip("/")
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


def sent_key(scope: Scope) -> bytes:
    """What stands after Bearer in the only Authorization header; empty if there is none."""
    given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
    scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
    return bytes(key) if scheme.lower() == b"bearer" else b""


def digest(key: bytes) -> bytes:
    """Of one length, so that a comparison takes one time."""
    return hashlib.sha256(key).digest()


def key_problem(key: str | None) -> str | None:
    """Why nobody could use this key, or would need it. None if there is none, or a good one."""
    if key is None:
        return None
    if not key:
        return "is empty, so that the server would ask for none"
    if not all("!" <= letter <= "~" for letter in key):
        return "has a blank, a line break or a letter beyond ASCII, which no header can carry"
    return None
