"""The answers of a server, piece by piece, over a real connection of this machine's loopback."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kubectl_llm.chat import HELP, Client, Conversation, chosen, pieces
from kubectl_llm.forward import Server, server
from kubectl_llm.kubectl import ExitCode, PluginError


def event(text: str | None) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[Client, list[Any]]]:
    asked: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            asked.append((self.headers.get("Authorization"), json.loads(self.rfile.read(length) or b"null")))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    try:
        yield Client(Server("http", "chat-serving.team.svc", 80), found.server_port, "secret"), asked
    finally:
        found.shutdown()
        found.server_close()


def test_an_answer_comes_in_pieces_and_is_part_of_the_next_question() -> None:
    with answering(200, event(None) + b": a comment\n\n" + event("Good ") + event("day") + DONE) as (client, asked):
        talk = Conversation(client, "base", system="Be brief.")
        assert list(talk.say("Hello")) == ["Good ", "day"]
        list(talk.say("And you?"))
    assert [key for key, _ in asked] == ["Bearer secret", "Bearer secret"]
    assert [one["role"] for one in asked[1][1]["messages"]] == ["system", "user", "assistant", "user"]
    assert asked[1][1]["messages"][2]["content"] == "Good day"


@pytest.mark.parametrize(
    ("status", "body", "code", "told"),
    [
        (401, b"{}", ExitCode.FORBIDDEN, "wants its API key"),
        (500, b"<html>\x1b[2J", ExitCode.FAILED, "answered 500: <html>"),
        (200, event("half"), ExitCode.FAILED, "broke off"),
        (200, b'data: {"error": {"message": "no room"}}\n\n', ExitCode.FAILED, "no room"),
    ],
    ids=["no key", "no answer", "half an answer", "an error amid"],
)
def test_what_is_no_answer_is_told_and_not_remembered(status: int, body: bytes, code: ExitCode, told: str) -> None:
    with answering(status, body) as (client, _):
        talk = Conversation(client, "base")
        with pytest.raises(PluginError, match=told) as found:
            list(talk.say("Hello"))
    assert found.value.code == code
    assert talk.messages == []
    assert "\x1b" not in str(found.value)


def test_nobody_answers() -> None:
    with answering(200, b"") as (client, _):
        pass
    with pytest.raises(PluginError, match="can't be reached") as found:
        client.models()
    assert found.value.code == ExitCode.UNREACHABLE


def test_commands_of_a_conversation() -> None:
    with answering(200, json.dumps({"data": [{"id": "base"}, {"id": "legal"}]}).encode()) as (client, _):
        talk = Conversation(client, "base", messages=[{"role": "user", "content": "x"}])
        assert talk.command("/model nobody") == "there is no model nobody; there is: base, legal"
        assert talk.command("/model legal") == "now legal answers"
        assert talk.model == "legal"
        assert talk.command("/clear") == "forgotten"
        assert talk.messages == []
        assert talk.command("/what") == HELP
        assert talk.command("/exit") is None


def test_a_model_that_is_not_there() -> None:
    assert chosen(["base", "legal"], None) == "base"
    assert chosen(["base", "legal"], "legal") == "legal"
    with pytest.raises(PluginError, match="no model ghost; there is: base"):
        chosen(["base"], "ghost")


def test_a_serving_that_is_not_ready_says_why() -> None:
    waiting: dict[str, Any] = {
        "metadata": {"name": "chat"},
        "status": {
            "url": "http://chat-serving.team.svc/v1",
            "conditions": [
                {
                    "type": "Ready",
                    "status": "False",
                    "reason": "ModelNotReady",
                    "message": "stage chat has no result yet",
                }
            ],
        },
    }
    with pytest.raises(PluginError, match="answers nobody yet: ModelNotReady: stage chat has no result yet"):
        server(waiting)
    ready = {**waiting, "status": {**waiting["status"], "readyReplicas": 1}}
    assert server(ready) == Server("http", "chat-serving.team.svc", 80)
    assert server(ready).service == "chat-serving"


def test_a_line_that_is_no_event_is_passed_over() -> None:
    assert list(pieces([b"\n", b": ping\n", event("a"), DONE])) == ["a"]
