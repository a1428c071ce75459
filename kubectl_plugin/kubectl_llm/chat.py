"""A conversation with an LLMServing or an LLMApp by OpenAI's API, answers as they come."""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from kubectl_llm.forward import Server
from kubectl_llm.kubectl import ExitCode, Manifest, PluginError
from kubectl_llm.screen import clean

Message = dict[str, str]
HELP = "/model NAME asks another model or adapter, /clear forgets what was said, /exit ends"


@dataclass
class Client:
    """Of the OpenAI API at a forwarded port. ``ca``: a file of certificates that are believed; None: the system's."""

    server: Server
    port: int
    key: str | None = None
    ca: str | None = None

    def connection(self) -> http.client.HTTPConnection:
        if self.server.scheme == "http":
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        return NamedHttps(self.server.host, self.port, ssl.create_default_context(cafile=self.ca))

    def ask(self, method: str, path: str, body: object = None) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json", "Host": self.server.host}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            connection = self.connection()
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            raise PluginError(
                f"the certificate of {self.server.host} is not believed ({error.verify_message}): --ca FILE"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise PluginError(f"the {self.server.word} can't be reached: {error}", ExitCode.UNREACHABLE) from error
        if answer.status == http.HTTPStatus.UNAUTHORIZED:
            said = f"the {self.server.word} wants its API key: --api-key-file FILE, or LLM_API_KEY"
            raise PluginError(said, ExitCode.FORBIDDEN)
        if answer.status != http.HTTPStatus.OK:
            said = message_of(answer.read(2000).decode(errors="replace"))
            raise PluginError(f"the {self.server.word} answered {answer.status}: {said}")
        return answer

    def models(self) -> list[str]:
        found = json.loads(self.ask("GET", "/v1/models").read())
        return [one["id"] for one in found["data"]]

    def answer(self, model: str, messages: list[Message], more: Manifest, told: Told) -> Iterator[str]:
        """Piece by piece, as the server sends it. ``more``: fields of the request; ``told``: gets what is no text."""
        asked = {"model": model, "messages": messages, "stream": True, **more}
        yield from pieces(self.ask("POST", "/v1/chat/completions", asked), told)


class NamedHttps(http.client.HTTPSConnection):
    """To loopback, but the certificate must be of the server's name in the cluster."""

    def __init__(self, name: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__("127.0.0.1", port, timeout=600)
        self.name, self.believed = name, context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self.believed.wrap_socket(self.sock, server_hostname=self.name)


def message_of(body: str) -> str:
    """What a refusal says; all of it, if it has not the shape of OpenAI's."""
    try:
        return clean(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return clean(body)


@dataclass
class Told:
    """What an app says beside its text: passages, calls of tools, what it could not do, and a call that waits."""

    citations: list[Manifest] = field(default_factory=list)
    steps: list[Manifest] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    limit: str = ""
    approval: Manifest | None = None
    on_step: Callable[[Manifest], None] = lambda step: None

    def take(self, event: Manifest) -> None:
        """The last event has all, those before a step each."""
        if "citations" not in event:
            for step in event.get("steps") or []:
                self.steps.append(step)
                self.on_step(step)
            return
        self.citations, self.problems = event["citations"] or [], event.get("problems") or []
        self.limit, self.approval = str(event.get("limit") or ""), event.get("approval")


def pieces(lines: Iterable[bytes], told: Told) -> Iterator[str]:
    """The text of server-sent events, until `[DONE]`. What ends before that is told: half an answer is none."""
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise PluginError(f"the answer broke off: {clean(event['error'].get('message', event['error']))}")
        told.take(event)
        for choice in event.get("choices", []):
            if text := (choice.get("delta") or {}).get("content"):
                yield text
    raise PluginError("the answer broke off: the connection ended before its last word")


@dataclass
class Conversation:
    """What was said. A question that was not answered is not part of it.

    ``session``: of an app that keeps conversations. ``told``: beside the newest answer.
    """

    client: Client
    model: str
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    session: str = ""
    told: Told = field(default_factory=Told)

    def say(self, text: str, *, approve: bool | None = None) -> Iterator[str]:
        """``approve``: the answer to an app that has asked whether it may call a tool."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        asked = {"role": "user", "content": text}
        more = {"session": self.session} if self.session else {}
        self.told = Told(on_step=self.told.on_step)
        answer = ""
        for piece in self.client.answer(
            self.model, [*system, *self.messages, asked],
            more if approve is None else {**more, "approve": approve}, self.told,
        ):  # fmt: skip
            answer += piece
            yield piece
        self.messages += [asked, {"role": "assistant", "content": answer}]

    def command(self, line: str) -> str | None:
        """The answer to a line that begins with a stroke; None ends the conversation."""
        match line.split():
            case ["/exit" | "/quit"]:
                return None
            case ["/clear"]:
                self.messages.clear()
                self.session = new_session() if self.session else ""
                return "forgotten"
            case ["/model", name]:
                models = self.client.models()
                if name not in models:
                    return f"there is no model {name}; there is: {', '.join(models)}"
                self.model = name
                return f"now {name} answers"
        return HELP


def new_session() -> str:
    """That nobody can guess: who knows it reads on."""
    return secrets.token_hex(16)


def chosen(models: list[str], wanted: str | None) -> str:
    """The base, which vLLM names first, or the one that is asked for."""
    if wanted is None and models:
        return models[0]
    if wanted in models:
        return str(wanted)
    raise PluginError(f"there is no model {wanted}; there is: {', '.join(models) or 'none'}", ExitCode.NOT_FOUND)
