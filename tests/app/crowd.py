"""Clients that all come at the same time, each on a connection of its own, and do what a refusal tells them."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from llm_app.config import Model, Parameters, Prompt
from llm_app.config import Server as Config
from tests.app.server_process import serving

MODEL_SECONDS = 0.05
REFUSED = 'llm_app_requests_total{path="/v1/chat/completions",status="429"} '


@dataclass
class Echo:
    """A model that says what it is asked, after a while."""

    seconds: float = MODEL_SECONDS
    busy: int = 0
    most: int = 0

    async def completions(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.busy -= 1
        message = {"role": "assistant", "content": asked["messages"][-1]["content"]}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return web.json_response({"id": "1", "object": "chat.completion", "created": 1, "choices": choices})


@dataclass
class Seen:
    """``tries``: of each client until its own answer was there. ``wrong``: answers that weren't its own."""

    tries: list[int] = field(default_factory=list)
    wrong: list[Any] = field(default_factory=list)
    most: int = 0  # requests that the model had at a time
    memory: float = 0.0  # MiB of the server at most
    before: float = 0.0  # MiB
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of the server
    after: str = ""  # metrics

    @property
    def answered(self) -> int:
        return len(self.tries)

    @property
    def refused(self) -> int:
        """Requests that the server has told to come again."""
        return next((int(float(line.removeprefix(REFUSED))) for line in self.after.splitlines()
                     if line.startswith(REFUSED)), 0)  # fmt: skip


async def comes(count: int, seconds: float = MODEL_SECONDS, concurrency: int = 64, queue: int = 256) -> Seen:
    """A crowd of so many, until the last of them has its answer. ``seconds``: that the model takes for one."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    seen, echo = Seen(), Echo(seconds)
    async with model(echo) as url, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        config = Config(
            name="help", model=Model(url=url, name="m"), prompt=Prompt(), parameters=Parameters(),
            concurrency=concurrency, queue=queue,
        )  # fmt: skip
        async with serving(config) as served:
            seen.before, before = served.memory("VmRSS"), served.cpu_seconds()
            began = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for number in range(count):
                    group.create_task(client(session, served.url, number, seen))
            seen.seconds = time.perf_counter() - began
            seen.most, seen.memory = echo.most, served.memory("VmHWM")
            seen.cpu_seconds = served.cpu_seconds() - before
            async with session.get(f"{served.url}/metrics") as answer:
                seen.after = await answer.text()
    return seen


async def client(session: aiohttp.ClientSession, url: str, number: int, seen: Seen) -> None:
    """Until it is answered."""
    body = {"messages": [{"role": "user", "content": f"question {number}"}]}
    tries = 0
    while True:
        tries += 1
        timeout = aiohttp.ClientTimeout(total=None)
        async with session.post(f"{url}/v1/chat/completions", json=body, timeout=timeout) as answer:
            told = await answer.json()
            if answer.status == 429:
                wait = int(answer.headers["Retry-After"])
            elif answer.status == 200 and told["choices"][0]["message"]["content"] == f"question {number}":
                seen.tries.append(tries)
                return
            else:
                seen.wrong.append((answer.status, told))
                return
        await asyncio.sleep(wait)


@asynccontextmanager
async def model(echo: Echo) -> AsyncIterator[str]:
    made = web.Application()
    made.add_routes([web.post("/v1/chat/completions", echo.completions)])
    runner = web.AppRunner(made, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
