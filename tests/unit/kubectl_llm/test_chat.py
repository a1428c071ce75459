"""The answers of a server, piece by piece, over a real connection of this machine's loopback."""

from __future__ import annotations

import http.server
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kubectl_llm import talk
from kubectl_llm.chat import HELP, Client, Conversation, Told, chosen, pieces
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
        "kind": "LLMServing",
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
    assert list(pieces([b"\n", b": ping\n", event("a"), DONE], Told())) == ["a"]


def whole(**fields: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [], **fields}).encode() + b"\n\n"


STEP = {"agent": "clerk", "tool": "stock", "arguments": {"item": "pump"}, "outcome": "answered", "seconds": 0.25}
CITED = {"number": 1, "title": "Care \x1b[2J", "knowledge": "manual", "source": "notes", "text": "t", "cited": True}
OF_AN_APP = (
    whole(steps=[STEP]) + event("Three [1].")
    + whole(steps=[STEP], citations=[CITED, {**CITED, "number": 2, "cited": False}], problems=["manual: by words"])
    + DONE
)  # fmt: skip


def test_what_an_app_tells_beside_its_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """Its text alone goes to stdout, so that it can be piped."""
    with answering(200, OF_AN_APP) as (client, asked):
        talk.answer(Conversation(client, "help", session="s" * 16), "How many?")
    told = capsys.readouterr()
    assert told.out == "Three [1].\n"
    assert told.err.splitlines() == [
        'clerk: stock(item="pump"): answered in 0.25 s', "[1] Care  [2J  (manual, notes)", "manual: by words"
    ]  # fmt: skip
    assert asked[0][1]["session"] == "s" * 16


def test_an_answer_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(200, OF_AN_APP) as (client, _):
        talk.once(Conversation(client, "help"), "How many?", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["answer"], told["steps"]) == ("help", "Three [1].", [STEP])
    assert [one["cited"] for one in told["citations"]] == [True, False]


@pytest.mark.parametrize(("typed", "agreed"), [("y\n", True), ("\n", False), ("", False)])
def test_a_call_that_wants_a_word(typed: str, agreed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is no yes is a no, also the end of what is typed."""
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    with answering(200, event("Done.") + whole(citations=[]) + DONE) as (client, asked):
        conversation = Conversation(client, "help", session="s" * 16, told=Told(approval={"tool": "orders"}))
        talk.approve(conversation)
    assert asked[0][1]["approve"] is agreed
    assert conversation.told.approval is None


def test_a_refusal_in_the_shape_of_openais_is_its_message() -> None:
    body = json.dumps({"error": {"message": "n: leave it out", "code": "x"}}).encode()
    with answering(400, body) as (client, _), pytest.raises(PluginError, match="answered 400: n: leave it out"):
        list(Conversation(client, "help").say("x"))


def test_another_conversation_is_another_session() -> None:
    with answering(200, b"") as (client, _):
        conversation = Conversation(client, "help", session="first")
        conversation.command("/clear")
        assert len(conversation.session) == 32
        plain = Conversation(client, "help")
        plain.command("/clear")
        assert plain.session == ""
