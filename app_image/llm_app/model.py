"""Asks the served model, in OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from opentelemetry.trace import Span, SpanKind, use_span

from llm_app.config import CERTIFICATES, Model
from llm_app.connection import Connection
from llm_app.requests import RequestError
from llm_app.tracing import of_stream, span, used

CONNECT_SECONDS = 15.0
SILENT_SECONDS = 600.0  # from one piece of an answer to the next
EVENT = b"data:"
DONE = "[DONE]"
LINE_BYTES = 1 << 20


class Client(Connection):
    """An error of the model's server that is about the request goes to who has asked."""

    def __init__(self, model: Model, key: str = "", certificates: Path = Path(CERTIFICATES)) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
        super().__init__(key, certificates, timeout, LINE_BYTES)
        self._url, self._name = f"{model.url}/chat/completions", model.name
        self._attributes = {"gen_ai__operation__name": "chat", "gen_ai__request__model": model.name}

    async def answer(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Raises RequestError."""
        with span(f"chat {self._name}", SpanKind.CLIENT, **self._attributes) as told:
            try:
                async with self._session.post(self._url, json=body) as response:
                    await refuse(response)
                    found = await response.json()
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise unreachable(error) from None
            if not isinstance(found, dict):
                raise RequestError(502, "bad_gateway", "the model's server answered something else than an object")
            used(told, found.get("usage"))
            return found

    async def pieces(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Of an answer, as they come. Raises RequestError, before the first piece or in between."""
        with of_stream(f"chat {self._name}", **self._attributes) as told:
            async for piece in self._pieces(body, told):
                used(told, piece.get("usage"))
                yield piece

    async def _pieces(self, body: Mapping[str, Any], told: Span) -> AsyncGenerator[dict[str, Any], None]:
        ended = False
        try:
            with use_span(told):
                response = await self._session.post(self._url, json=body)
            async with response:
                await refuse(response)
                told.add_event("first_byte")
                async for line in response.content:
                    if not line.startswith(EVENT):
                        continue
                    text = line[len(EVENT) :].strip().decode()
                    if text == DONE:
                        ended = True
                        break
                    piece = json.loads(text)
                    if not isinstance(piece, dict):
                        raise ValueError("a piece that is no object")
                    yield piece
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise unreachable(error) from None
        if not ended:
            raise RequestError(502, "bad_gateway", "the model's server broke off in the middle of its answer")


async def refuse(response: aiohttp.ClientResponse) -> None:
    """Raises RequestError with what vLLM says is wrong with a request; of its own faults and its key nobody is told."""
    if response.status < 400:
        return
    if response.status in (400, 413, 422):
        said = words_of(await response.text())
        raise RequestError(400, "invalid_request", f"the model does not take it: {said}")
    if response.status == 429:
        raise RequestError(429, "rate_limit_exceeded", "the model's server has too much to do; try again")
    code = response.status
    why = {401: "does not take the key that the app has", 404: "does not know the model"}.get(code, f"answered {code}")
    raise RequestError(502, "bad_gateway", f"the model's server {why}")


def words_of(text: str) -> str:
    try:
        found = json.loads(text)
        said = found["error"]["message"] if "error" in found else found["message"]
    except (ValueError, KeyError, TypeError):
        said = text
    return str(said)[:1000]


def unreachable(error: Exception) -> RequestError:
    if isinstance(error, TimeoutError):
        return RequestError(504, "timeout", "the model's server says nothing; try again")
    if isinstance(error, aiohttp.ClientConnectorError):
        return RequestError(503, "model_unavailable", "the model's server can't be reached; try again")
    return RequestError(502, "bad_gateway", f"the model's server broke off: {type(error).__name__}")
