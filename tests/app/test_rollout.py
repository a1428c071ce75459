"""Clients that ask without pause while knowledge, prompt and model change: none fails, no answer is of two revisions.

The servers are processes, as in pods, and are replaced in the order of a rollout: the new one answers, the old one
leaves the Service, then is told to end. A forwarder of connections stands for the Service.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from llm_app.config import Chunking, Document, IndexConfig, IndexSource, Knowledge, Model, Parameters, Prompt, Retrieval
from llm_app.config import Server as Config
from llm_app.index import make
from tests.app.conftest import until
from tests.app.server_process import Served, serving

CLIENTS = 12
ANSWERS = 40  # between two changes
IDLE_SECONDS = 600  # on a busy machine a client that asks without pause asks seldom


@dataclass
class Service:
    """Connects whoever comes with one server; connections stay with theirs. ``comes``: those without an answer yet."""

    server: str = ""
    port: int = 0
    comes: Counter[str] = field(default_factory=Counter)

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = self.server
        self.comes[server] += 1
        there = urlsplit(server)
        behind_reader, behind_writer = await asyncio.open_connection(there.hostname, there.port)
        first = partial(self.comes.subtract, [server])
        await asyncio.gather(passed(reader, behind_writer), passed(behind_reader, writer, first))


async def passed(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: Callable[[], None] = lambda: None
) -> None:
    told = False
    try:
        while data := await reader.read(1 << 16):
            if not told:
                told = True
                first()
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def service() -> AsyncIterator[Service]:
    made = Service()
    server = await asyncio.start_server(made.connect, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


@asynccontextmanager
async def model(name: str) -> AsyncIterator[str]:
    """Says which model it is, and what it was told."""

    async def completions(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        system, user = (turn["content"] for turn in asked["messages"])
        said = json.dumps({"model": name, "asked": asked["model"], "system": system, "user": user})
        await asyncio.sleep(0.01)
        if not asked.get("stream"):
            message = {"role": "assistant", "content": said}
            return web.json_response({"id": "1", "choices": [{"index": 0, "message": message}]})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for at in range(0, len(said), 200):
            piece = {"id": "1", "choices": [{"index": 0, "delta": {"content": said[at : at + 200]}}]}
            await response.write(f"data: {json.dumps(piece)}\n\n".encode())
            await asyncio.sleep(0.005)
        await response.write(b"data: [DONE]\n\n")
        return response

    made = web.Application()
    made.add_routes([web.post("/v1/chat/completions", completions)])
    runner = web.AppRunner(made, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@dataclass
class Asking:
    """What clients have seen. An answer is of a revision of each: prompt, knowledge, and model."""

    url: str
    answers: list[tuple[str, str, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    over: bool = False

    async def client(self, session: aiohttp.ClientSession, *, stream: bool) -> None:
        body = {"messages": [{"role": "user", "content": "valve?"}], "stream": stream}
        while not self.over:
            try:
                async with session.post(f"{self.url}/v1/chat/completions", json=body) as answer:
                    status, text = answer.status, await answer.text()
                assert status == 200, text
                self.answers.append(revisions(*(streamed(text) if stream else whole(json.loads(text)))))
            except (aiohttp.ClientError, AssertionError, KeyError, ValueError) as error:
                self.failed.append(f"{type(error).__name__}: {error}")


def whole(told: Any) -> tuple[str, list[Any]]:
    return told["choices"][0]["message"]["content"], told["citations"]


def streamed(text: str) -> tuple[str, list[Any]]:
    *pieces, last, done = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert done == "[DONE]", text
    said = "".join(json.loads(piece)["choices"][0]["delta"]["content"] for piece in pieces)
    return said, json.loads(last)["citations"]


def revisions(said: str, cites: list[Any]) -> tuple[str, str, str]:
    """Of one answer, whose parts must agree."""
    told = json.loads(said)
    assert told["model"] == told["asked"], "asked of another model than the app's"
    [knowledge] = {one["revision"] for one in cites}
    assert f"The valve of {knowledge} is red." in told["user"], "what is cited was not sent"
    return told["system"], knowledge, told["model"]


def indexed(folder: Path, revision: str, used: str) -> None:
    text = f"The valve of {revision} is red."
    source = IndexSource(name="notes", documents=[Document(title="valve", text=text)])
    make(IndexConfig(knowledge="manual", revision=revision, folder=str(folder), chunking=Chunking(), sources=[source],
                     keep=[used] if used else [], used=used))  # fmt: skip


async def test_no_request_fails_and_no_answer_is_of_two_revisions(tmp_path: Path) -> None:
    plan = [("p1", "k1", "m1"), ("p1", "k2", "m1"), ("p2", "k2", "m1"), ("p2", "k2", "m2"), ("p3", "k3", "m1")]
    async with AsyncExitStack() as stack:
        models = {name: await stack.enter_async_context(model(name)) for name in ("m1", "m2")}
        front = await stack.enter_async_context(service())
        asking = Asking(f"http://127.0.0.1:{front.port}")
        kept = await stack.enter_async_context(aiohttp.ClientSession())
        anew = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)))
        clients: list[asyncio.Task[None]] = []
        used, old = "", None
        for prompt, knowledge, served in plan:
            if knowledge != used:
                await asyncio.to_thread(indexed, tmp_path, knowledge, used)
                used = knowledge
            config = Config(
                name="help", prompt=Prompt(system=prompt), parameters=Parameters(),
                model=Model(url=models[served], name=served), drain_seconds=IDLE_SECONDS,
                knowledge=[Knowledge(name="manual", revision=knowledge, folder=str(tmp_path / knowledge),
                                     retrieval=Retrieval())],
            )  # fmt: skip
            new = await stack.enter_async_context(serving(config, IDLE_SECONDS))
            front.server = new.url
            if old:
                await leaves(front, old)
            old = new
            if not clients:
                clients = [
                    asyncio.create_task(asking.client(kept if at % 2 else anew, stream=at % 4 < 2))
                    for at in range(CLIENTS)
                ]
            seen = len(asking.answers)
            await until(lambda seen=seen: len(asking.answers) >= seen + ANSWERS or asking.failed)  # type: ignore[misc]
        asking.over = True
        await asyncio.gather(*clients)
    assert not asking.failed, asking.failed[:3]
    assert {*asking.answers} == {*plan}


async def leaves(front: Service, old: Served) -> None:
    """As the kubelet ends a pod that has left the Service: after a while in which nobody new has come (preStop)."""
    await until(lambda: not front.comes[old.url])
    old.process.send_signal(signal.SIGTERM)
    assert await old.process.wait() == 0
