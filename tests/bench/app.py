"""What the server of an app adds to the first piece of an answer, and the memory of a replica.

A server that answers at once stands for vLLM, another for the model that embeds; the app's server is a process of its
own, as in its pod. The same questions are asked of the first directly and through the app, in turns, one by one.
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
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from llm_app.config import Chunking, IndexConfig, IndexSource, Knowledge, Model, Parameters, Prompt, Retrieval
from llm_app.config import Server as Config
from llm_app.index import make
from tests.app.crowd import comes
from tests.app.embedder import EmbeddingServer, embedding_server
from tests.app.server_process import serving

WORDS = [f"word{number}" for number in range(5000)]
CHUNK_WORDS = 80


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
    print("| an app with | added to the first piece, p50, ms | p95, ms | resident memory, MiB |")
    print("|---|---|---|---|")
    async with upstream() as url, aiohttp.ClientSession() as session:
        for name, knowledge in cases.items():
            config = Config(name="app", model=Model(url=url, name="m"), knowledge=knowledge, prompt=Prompt(),
                            parameters=Parameters())  # fmt: skip
            async with serving(config) as served:
                direct, through = await timed(session, url, f"{served.url}/v1", count)
                memory = served.memory("VmRSS")
            added = sorted(after - before for before, after in zip(direct, through, strict=True))
            p95 = added[int(0.95 * len(added))]
            print(f"| {name} | {1000 * statistics.median(added):.1f} | {1000 * p95:.1f} | {memory:.0f} |", flush=True)


async def crowds() -> None:
    """Of one, two and ten thousand clients, before a model that takes 50 ms for an answer, 64 at a time."""
    print("| clients at the same time | answered | seconds until all are | tries of one at most, mean | memory, MiB |")
    print("|---|---|---|---|---|")
    for count in (1000, 2000, 10_000):
        seen = await comes(count)
        tries = f"{max(seen.tries)}, {statistics.mean(seen.tries):.1f}"
        print(f"| {count:,} | {seen.answered:,} | {seen.seconds:.1f} | {tries} | {seen.memory:.0f} |", flush=True)


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


async def timed(session: aiohttp.ClientSession, url: str, own: str, count: int) -> tuple[list[float], list[float]]:
    """Seconds until the first piece, of the model and of the app."""
    drawn = random.Random(1)
    direct, through = [], []
    for number in range(count + 20):
        body = {"messages": [{"role": "user", "content": " ".join(drawn.choices(WORDS, k=12))}], "stream": True}
        before, after = await first(session, url, {**body, "model": "m"}), await first(session, own, body)
        if number >= 20:
            direct.append(before)
            through.append(after)
    return direct, through


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

    made = web.Application()
    made.add_routes([web.post("/v1/chat/completions", answer)])
    runner = web.AppRunner(made)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
