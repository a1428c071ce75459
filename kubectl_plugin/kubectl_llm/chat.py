"""`kubectl llm chat`: a conversation with an LLMServing, its answer written as it comes."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from kubectl_llm.forward import Server
from kubectl_llm.kubectl import ExitCode, PluginError
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
            raise PluginError(f"the serving can't be reached: {error}", ExitCode.UNREACHABLE) from error
        if answer.status == http.HTTPStatus.UNAUTHORIZED:
            raise PluginError("the serving wants its API key: --api-key-file FILE, or LLM_API_KEY", ExitCode.FORBIDDEN)
        if answer.status != http.HTTPStatus.OK:
            raise PluginError(
                f"the serving answered {answer.status}: {clean(answer.read(2000).decode(errors='replace'))}"
            )
        return answer

    def models(self) -> list[str]:
        found = json.loads(self.ask("GET", "/v1/models").read())
        return [one["id"] for one in found["data"]]

    def answer(self, model: str, messages: list[Message]) -> Iterator[str]:
        """Piece by piece, as the server sends it."""
        asked = {"model": model, "messages": messages, "stream": True}
        yield from pieces(self.ask("POST", "/v1/chat/completions", asked))


class NamedHttps(http.client.HTTPSConnection):
    """To loopback, but the certificate must be of the server's name in the cluster."""

    def __init__(self, name: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__("127.0.0.1", port, timeout=600)
        self.name, self.believed = name, context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self.believed.wrap_socket(self.sock, server_hostname=self.name)


def pieces(lines: Iterable[bytes]) -> Iterator[str]:
    """The text of server-sent events, until `[DONE]`. What ends before that is told: half an answer is none."""
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise PluginError(f"the serving broke off: {clean(event['error'].get('message', event['error']))}")
        for choice in event.get("choices", []):
            if text := (choice.get("delta") or {}).get("content"):
                yield text
    raise PluginError("the answer broke off: the connection ended before its last word")


@dataclass
class Conversation:
    """What was said. A question that was not answered is not part of it."""

    client: Client
    model: str
    system: str | None = None
    messages: list[Message] = field(default_factory=list)

    def say(self, text: str) -> Iterator[str]:
        told = [{"role": "system", "content": self.system}] if self.system else []
        asked = {"role": "user", "content": text}
        answer = ""
        for piece in self.client.answer(self.model, [*told, *self.messages, asked]):
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
                return "forgotten"
            case ["/model", name]:
                models = self.client.models()
                if name not in models:
                    return f"there is no model {name}; there is: {', '.join(models)}"
                self.model = name
                return f"now {name} answers"
        return HELP


def chosen(models: list[str], wanted: str | None) -> str:
    """The base, which vLLM names first, or the one that is asked for."""
    if wanted is None and models:
        return models[0]
    if wanted in models:
        return str(wanted)
    raise PluginError(f"there is no model {wanted}; there is: {', '.join(models) or 'none'}", ExitCode.NOT_FOUND)
