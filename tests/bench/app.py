"""What the server of an app adds to the first piece of an answer, and the memory of a replica.

A server that answers at once stands for vLLM, another for the model that embeds; the app's server is a process of its
own, as in its pod. The same questions are asked in turns, one by one: of the first directly, through the app, and
through one that is the same but for its traces, all of which a collector takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from llm_app.config import Chunking, IndexConfig, IndexSource, Knowledge, Model, Parameters, Prompt, Retrieval, Tracing
from llm_app.config import Server as Config
from llm_app.index import make
from llm_app.server import Handler
from llm_app.tracing import DELAY_MS
from tests.app.crowd import comes
from tests.app.embedder import EmbeddingServer, embedding_server
from tests.app.server_process import Served, serving

WORDS = [f"word{number}" for number in range(5000)]
CHUNK_WORDS = 80
UNCOUNTED = 20  # questions, with which connections are made
CROWDS = {0.05: (100, 1000, 2000, 10_000), 2.0: (100, 1000, 2000)}  # clients, by the seconds of an answer


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench app", description=__doc__)
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--crowd", action="store_true", help="instead, clients that all come at the same time")
    given = parser.parse_args(arguments)
    if given.crowd:
        asyncio.run(crowds())
        return
    with tempfile.TemporaryDirectory() as folder, embedding_server() as embedder:
        asyncio.run(rows(Path(folder), embedder, given.chunks, given.questions))


async def rows(folder: Path, embedder: EmbeddingServer, chunks: int, count: int) -> None:
    await asyncio.to_thread(index, folder, embedder, chunks)
    cases: dict[str, list[Knowledge]] = {"no knowledge": []}
    for mode in ("keyword", "dense", "hybrid"):
        retrieval = Retrieval.model_validate({"mode": mode})
        cases[f"{chunks:,} chunks, {mode}"] = [
            Knowledge(name="k", revision="r", folder=str(folder / "r"), retrieval=retrieval,
                      embedding=embedder.settings() if mode != "keyword" else None)
        ]  # fmt: skip
    print("| an app with | traces | added to the first piece, p50, ms | p95, ms | CPU ms a question | memory, MiB |")
    print("|---|---|---|---|---|---|")
    async with upstream() as url, collector() as endpoint, aiohttp.ClientSession() as session:
        for name, knowledge in cases.items():
            plain = Config(name="app", model=Model(url=url, name="m"), knowledge=knowledge, prompt=Prompt(),
                           parameters=Parameters())  # fmt: skip
            traced = plain.model_copy(update={"tracing": Tracing(endpoint=endpoint)})
            async with serving(plain) as one, serving(traced) as other:
                seen = {"no": Through(one), "yes": Through(other)}
                await compare(session, url, list(seen.values()), count)
            for traces, through in seen.items():
                print(f"| {name} | {traces} | {through.row()} |", flush=True)
            print(f"  with traces, of what it is without: {seen['yes'].against(seen['no'])}", flush=True)


@dataclass
class Through:
    """An app, and what it has added to each question, in seconds."""

    served: Served
    added: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    memory: float = 0.0  # MiB

    @property
    def cpu_ms(self) -> float:
        return 1000 * self.cpu_seconds / len(self.added)

    def row(self) -> str:
        p50, p95 = (1000 * sorted(self.added)[int(share * len(self.added))] for share in (0.5, 0.95))
        return f"{p50:.1f} | {p95:.1f} | {self.cpu_ms:.2f} | {self.memory:.0f}"

    def against(self, plain: Through) -> str:
        added = statistics.median(self.added) / statistics.median(plain.added)
        return f"{added:.2f} of the first piece, {self.cpu_ms / plain.cpu_ms:.2f} of the CPU seconds"


async def crowds() -> None:
    """Before a model that answers 64 at a time."""
    print("| seconds of an answer | clients at once | answered | lost | requests | of them 429 | of one client | "
          "seconds until all are answered, and at least | CPU ms a request | memory, MiB |")  # fmt: skip
    print(f"|{'---|' * 10}")
    for seconds, counts in CROWDS.items():
        for count in counts:
            seen = await comes(count, seconds)
            requests = seen.answered + seen.refused
            print(f"| {seconds:g} | {count:,} | {seen.answered:,} | {count - seen.answered:,} | {requests:,} | "
                  f"{seen.refused:,} | {statistics.mean(seen.tries):.1f}, at most {max(seen.tries)} | "
                  f"{seen.seconds:.1f}, {count * seconds / 64:.1f} | {1000 * seen.cpu_seconds / requests:.2f} | "
                  f"{seen.memory:.0f} |", flush=True)  # fmt: skip


def index(folder: Path, embedder: EmbeddingServer, chunks: int) -> None:
    drawn = random.Random(0)
    lines = (
        json.dumps({"title": f"d{at}", "text": " ".join(drawn.choices(WORDS, k=CHUNK_WORDS))}) for at in range(chunks)
    )
    source = folder / "documents.jsonl"
    source.write_text("\n".join(lines), encoding="utf-8")
    sources = [IndexSource(name="s", path=str(source))]
    make(
        IndexConfig(knowledge="k", revision="r", folder=str(folder), chunking=Chunking(), sources=sources,
                    embedding=embedder.settings())
    )  # fmt: skip


async def compare(session: aiohttp.ClientSession, url: str, apps: list[Through], count: int) -> None:
    """``url``: of the model."""
    drawn = random.Random(1)
    for number in range(UNCOUNTED + count):
        if number == UNCOUNTED:
            for app in apps:
                app.added.clear()
                app.cpu_seconds = -app.served.cpu_seconds()
        body = {"messages": [{"role": "user", "content": " ".join(drawn.choices(WORDS, k=12))}], "stream": True}
        direct = await first(session, url, {**body, "model": "m"})
        for app in apps if number % 2 else reversed(apps):
            app.added.append(await first(session, f"{app.served.url}/v1", body) - direct)
    await asyncio.sleep(2 * DELAY_MS / 1000)  # for the last spans, which cost too
    for app in apps:
        app.cpu_seconds += app.served.cpu_seconds()
        app.memory = app.served.memory("VmRSS")


async def first(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> float:
    began = time.perf_counter()
    async with session.post(f"{url}/chat/completions", json=body) as response:
        assert response.status == 200, await response.text()
        await response.content.readline()
        found = time.perf_counter() - began
        await response.read()
    return found


@asynccontextmanager
async def upstream() -> AsyncIterator[str]:
    piece = json.dumps({"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                        "choices": [{"index": 0, "delta": {"content": "x"}}]})  # fmt: skip

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(f"data: {piece}\n\ndata: [DONE]\n\n".encode())
        return response

    async with listening("/v1/chat/completions", answer) as url:
        yield f"{url}/v1"


@asynccontextmanager
async def collector() -> AsyncIterator[str]:
    async def take(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response()

    async with listening("/v1/traces", take) as url:
        yield url


@asynccontextmanager
async def listening(path: str, handler: Handler) -> AsyncIterator[str]:
    made = web.Application()
    made.add_routes([web.post(path, handler)])
    runner = web.AppRunner(made, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
