"""The server of an app as its pod runs it, before a real HTTP server that stands for vLLM's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from llm_app.config import Chunking, Document, IndexConfig, IndexSource, Knowledge, Model, Parameters, Prompt, Retrieval
from llm_app.config import Server as Config
from llm_app.figures import Figures
from llm_app.index import make
from llm_app.model import Client
from llm_app.opening import opened
from llm_app.server import Api, chat_of

TEXTS = {"pump": "Oil the pump every 40 hours.", "valve": "The valve is red.", "保証": "保証の期間は三年です。"}
Answer = dict[str, Any]


@dataclass
class Vllm:
    """Answers in vLLM's shapes with ``words``, and keeps what it was asked. ``gate``: what it waits for."""

    words: tuple[str, ...] = ("Every ", "40 ", "hours ", "[1].")
    asked: list[Answer] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)  # W3C's traceparent, of requests that have one
    fails: tuple[int, str] | None = None  # status and body
    breaks: bool = False  # in the middle of a stream
    strange: Any = None  # choices of a last piece, of no shape of vLLM's
    gate: asyncio.Event | None = None
    decisions: list[Answer] = field(default_factory=list)  # of agents, in order; the last one again and again
    gone: int = 0  # requests that were given up
    busy: int = 0
    most: int = 0

    async def completions(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.asked.append(asked)
        self.keys.append(request.headers.get("Authorization"))
        self.traces += request.headers.getall("traceparent", [])
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            if self.gate:
                await self.gate.wait()
            if self.fails:
                return web.Response(status=self.fails[0], text=self.fails[1])
            return await self._stream(request, asked) if asked.get("stream") else self._whole(asked)
        except asyncio.CancelledError:
            self.gone += 1
            raise
        finally:
            self.busy -= 1

    def _whole(self, asked: Answer) -> web.Response:
        message = {"role": "assistant", "content": "".join(self.words)}
        if "structured_outputs" in asked:
            made = self.decisions.pop(0) if len(self.decisions) > 1 else self.decisions[0]
            message["content"] = json.dumps(made, separators=(",", ":"))
        return web.json_response({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": asked["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 20, "completion_tokens": len(self.words), "total_tokens": 24},
        })  # fmt: skip

    async def _stream(self, request: web.Request, asked: Answer) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word in self.words:
            piece = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": asked["model"],
                     "choices": [{"index": 0, "delta": {"content": word}}]}  # fmt: skip
            await response.write(f"data: {json.dumps(piece)}\n\n".encode())
            if self.breaks and request.transport:
                request.transport.abort()
                raise ConnectionResetError
        if self.strange is not None:
            await response.write(f"data: {json.dumps({'choices': self.strange})}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response


@dataclass
class App:
    """``post`` gives the status and what was answered."""

    url: str
    session: aiohttp.ClientSession
    vllm: Vllm
    upstream: web.AppRunner
    model_url: str

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        data = body if isinstance(body, str | bytes) else json.dumps(body)
        async with self.session.post(self.url + path, data=data, headers=headers) as answer:
            return answer.status, await answer.json()

    async def ask(self, text: str, **more: Any) -> tuple[int, Any]:
        return await self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **more})

    async def stream(self, text: str) -> list[Any]:
        """The events, the last of them [DONE]."""
        body = {"messages": [{"role": "user", "content": text}], "stream": True}
        async with self.session.post(self.url + "/v1/chat/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            lines = [line.decode().strip().removeprefix("data: ") async for line in answer.content if line.strip()]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with self.session.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.text()


Start = Callable[..., Awaitable[App]]


async def until(true: Callable[[], object]) -> None:
    """pytest's time limit ends a wait for what never comes."""
    while not true():  # noqa: ASYNC110 -- what others do has no event
        await asyncio.sleep(0.01)


async def listening(
    application: web.Application, cleanups: list[web.AppRunner], **options: Any
) -> tuple[str, web.AppRunner]:
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=30, **options)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    cleanups.append(runner)
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}", runner


@pytest.fixture
def in_thread() -> Callable[..., Awaitable[Any]]:
    """An index builder has an event loop of its own."""
    return asyncio.to_thread


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """``start(key=…, context=…, …)`` of the configuration; ``knowledge=False``: it has none."""
    cleanups: list[web.AppRunner] = []
    clients: list[Client] = []
    async with aiohttp.ClientSession() as session, AsyncExitStack() as stack:

        async def started(
            key: str = "",
            model_key: str = "",
            context: int | None = None,
            *,
            knowledge: bool = True,
            bases: Sequence[Knowledge] = (),
            **more: Any,
        ) -> App:
            vllm = Vllm()
            upstream = web.Application()
            upstream.add_routes([web.post("/v1/chat/completions", vllm.completions)])
            url, behind = await listening(upstream, cleanups)
            given: dict[str, Any] = {"prompt": Prompt(), "parameters": Parameters(max_tokens=64), **more}
            config = Config(
                name="help", revision="r1", model=Model(url=f"{url}/v1", name="chat-v1", context_tokens=context),
                knowledge=[*bases] or ([made(tmp_path)] if knowledge else []), **given,
            )  # fmt: skip
            client, figures = Client(config.model, model_key), Figures()
            clients.append(client)
            retriever = await stack.enter_async_context(opened(config.knowledge, figures))
            chat = await stack.enter_async_context(chat_of(config, retriever, client, figures))
            api = Api(chat, figures, key)
            own, _ = await listening(api.application(), cleanups, access_log=None)
            return App(own, session, vllm, behind, f"{url}/v1")

        yield started
        for runner in reversed(cleanups):
            await runner.cleanup()
        for client in clients:
            await client.__aexit__(None, None, None)


def made(folder: Path) -> Knowledge:
    """Of TEXTS."""
    documents = [Document(title=title, text=text) for title, text in TEXTS.items()]
    make(
        IndexConfig(
            knowledge="manual", revision="rev1", folder=str(folder), chunking=Chunking(),
            sources=[IndexSource(name="notes", documents=documents)],
        )
    )  # fmt: skip
    return Knowledge(name="manual", revision="rev1", folder=str(folder / "rev1"), retrieval=Retrieval(top_k=2))
