"""A proxy in front of the real API server that makes the network and the server misbehave as told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from kubernetes.aio import client as kubernetes

from llm_operator.kube.login import Connection

EXPIRED = json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}).encode() + b"\n"

Matches = Callable[[web.Request], bool]


@dataclass
class Fault:
    """What happens to the next ``times`` requests that match."""

    matches: Matches
    times: int
    status: int = 0  # answered instead of the server; 0: the connection is cut
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False  # the server does get the request, only its answer is lost


class Proxy:
    """Forwards everything, watches included, unless a fault is set."""

    def __init__(self, upstream: Connection) -> None:
        self._upstream = upstream
        self._session = upstream.session()
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.lists: list[tuple[str, str]] = []  # path and media type of every request for a page of a collection
        self._watches: set[asyncio.Event] = set()
        self._no_watches = False
        self._last_word = b""
        self.hidden = ""  # paths that begin like this are not found

    @classmethod
    @asynccontextmanager
    async def before(cls, upstream: Connection) -> AsyncIterator[tuple[Proxy, Connection]]:
        """A running proxy and a connection that goes through it."""
        proxy = cls(upstream)
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", proxy._serve)
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield proxy, Connection(kubernetes.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}"))
        finally:
            await runner.cleanup()
            await proxy._session.close()

    def expire_watches(self) -> None:
        """Ends every watch as a server does that has forgotten its resourceVersion; none starts before ``resume``."""
        self.end_watches(EXPIRED)

    def cut_watches(self) -> None:
        """Breaks every watch off; none starts before ``resume``."""
        self.end_watches(b"")

    def end_watches(self, word: bytes) -> None:
        """Ends every watch with these words; none starts before ``resume``."""
        self._no_watches, self._last_word = True, word
        for ended in self._watches:
            ended.set()

    def resume(self) -> None:
        self._no_watches = False

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        fault = next((fault for fault in self.faults if fault.times and fault.matches(request)), None)
        if fault:
            fault.times -= 1
            if fault.after:
                await self._forward(request)
            return await _misbehave(request, fault)
        if self.hidden and request.path.startswith(self.hidden):
            return web.json_response({"kind": "Status", "message": "hidden"}, status=404)
        if request.query.get("watch"):
            return await self._watch(request)
        if "limit" in request.query:
            self.lists.append((request.path, request.headers["Accept"]))
        status, headers, body = await self._forward(request)
        return web.Response(status=status, headers=headers, body=body)

    async def _forward(self, request: web.Request) -> tuple[int, dict[str, str], bytes]:
        async with self._session.request(
            request.method,
            self._upstream.server + request.path_qs,
            data=await request.read() or None,  # an empty body would get a media type, which the server refuses
            headers={name: request.headers[name] for name in ("Content-Type", "Accept") if name in request.headers},
        ) as answer:
            return answer.status, {"Content-Type": answer.headers["Content-Type"]}, await answer.read()

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        while self._no_watches:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        ended = asyncio.Event()
        self._watches.add(ended)
        response = web.StreamResponse()
        await response.prepare(request)
        forwarding = asyncio.create_task(self._copy(request, response))
        waiting = asyncio.create_task(ended.wait())
        try:
            await asyncio.wait({forwarding, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if ended.is_set() and self._last_word:
                await response.write(self._last_word)
            elif ended.is_set() and request.transport:
                request.transport.abort()
        finally:
            self._watches.discard(ended)
            forwarding.cancel()
            waiting.cancel()
        return response

    async def _copy(self, request: web.Request, response: web.StreamResponse) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(self._upstream.server + request.path_qs, timeout=timeout) as stream:
            async for line in stream.content:
                await response.write(line)


async def _misbehave(request: web.Request, fault: Fault) -> web.Response:
    if fault.status == 0:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()
    return web.json_response({"kind": "Status", "message": "injected"}, status=fault.status, headers=fault.headers)
