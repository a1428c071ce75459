"""Which requests come to vLLM: path by path, with and without a key."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llm_server.door import HEALTH, KEY, METRICS, METRICS_OPEN, PATHS, Door, Message, Receive, Scope, Send, key_problem

BEARER = (b"authorization", b"Bearer s3cret")
PREFLIGHT = ((b"Origin", b"http://a"), (b"Access-Control-Request-Method", b"POST"))
INSIDE = 299  # what the server behind the door says


async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": INSIDE, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def ask(path: str, *headers: tuple[bytes, bytes], **scope: Any) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    whole = {"type": "http", "method": "POST", "path": path, "headers": list(headers), "root_path": "", **scope}
    asyncio.run(Door(app)(whole, receive, send))
    return sent


def status(path: str, *headers: tuple[bytes, bytes], **scope: Any) -> int:
    return int(ask(path, *headers, **scope)[0]["status"])


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "s3cret")


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("path", sorted(PATHS | {"/v1/responses/resp_1-a", "/v1/responses/resp_1/cancel"}))
def test_every_path_wants_the_key_but_health(path: str) -> None:
    assert status(path) == (INSIDE if path == HEALTH else 401)
    assert status(path, BEARER) == INSIDE


@pytest.mark.parametrize(
    "path",
    [
        "/invocations", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/collective_rpc", "/sleep", "/docs",
        "/openapi.json", "/start_profile", "/inference/v1/generate", "/v1/chat/completions/render", "/metrics/",
        "/metricsx", "//v1/models", "/v1/models/", "/v1/../invocations", "/V1/models", "", "/", "v1/models",
        "/v1/responses/", "/v1/responses/a/b", "/v1/responses/a/cancel/x", "/v1/responses/a\n", "/v1/models\n",
        "/v1/responses/é", "/v1/models\0",
    ],
)  # fmt: skip
def test_another_path_is_not_there(path: str, key: None) -> None:
    del key
    assert status(path, BEARER) == 404
    assert status(path) == 404
    assert status(path, *PREFLIGHT, method="OPTIONS") == 404


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((b"authorization", b"Bearer other"),),
        ((b"authorization", b"Bearer s3cret "),),
        ((b"authorization", b"Bearer"),),
        ((b"authorization", b"Basic s3cret"),),
        ((b"authorization", b"s3cret"),),
        ((b"authorization", b"Bearer \xff"),),
        ((b"x-api-key", b"s3cret"),),
        (BEARER, (b"authorization", b"Bearer other")),
    ],
)
def test_another_key_is_none(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    assert status("/v1/models", *headers) == 401


@pytest.mark.usefixtures("key")
def test_what_is_sent_back_tells_what_to_do() -> None:
    start, body = ask("/v1/models")
    assert (b"content-type", b"application/json") in start["headers"]
    assert "Authorization: Bearer KEY" in json.loads(body["body"])["detail"]


def test_without_a_key_the_list_is_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert status("/v1/completions") == INSIDE
    assert status("/invocations") == 404


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(("value", "expected"), [("1", INSIDE), ("0", 401), ("", 401)])
def test_metrics_may_be_open(value: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(METRICS_OPEN, value)
    assert status(METRICS) == expected


@pytest.mark.usefixtures("key")
def test_a_browser_may_ask_and_no_more() -> None:
    assert status("/v1/models", *PREFLIGHT, method="OPTIONS") == INSIDE
    assert status("/v1/models", method="OPTIONS") == 401
    assert status("/v1/models", *PREFLIGHT, method="POST") == 401


@pytest.mark.usefixtures("key")
def test_a_root_path_is_taken_off_as_the_router_does() -> None:
    assert status("/llm/v1/models", BEARER, root_path="/llm") == INSIDE
    assert status("/llm/invocations", BEARER, root_path="/llm") == 404
    assert status("/v1/models", root_path="/v") == 401, "no part of a name"
    assert status("/v1/v1/models", root_path="/v1") == 401


@pytest.mark.usefixtures("key")
def test_a_websocket_is_closed_before_it_opens() -> None:
    (closed,) = ask("/v1/realtime", type="websocket")
    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
    assert ask("/other", BEARER, type="websocket")[0]["type"] == "websocket.close"
    assert status("/v1/realtime", BEARER, type="websocket") == INSIDE


@pytest.mark.usefixtures("key")
def test_the_start_of_the_server_is_no_request() -> None:
    assert ask("", type="lifespan")[0]["status"] == INSIDE


@pytest.mark.parametrize(
    ("value", "says"),
    [(None, ""), ("sk-a+b/c=~", ""), ("", "empty"), ("a b", "blank"), ("abc\n", "line break"), ("schlüssel", "ASCII")],
)
def test_a_key_that_nobody_can_send(value: str | None, says: str) -> None:
    assert says in (key_problem(value) or "")
    assert (key_problem(value) is None) == (not says)
