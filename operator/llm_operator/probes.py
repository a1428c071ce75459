"""The operator's own HTTP: /healthz and /readyz for the kubelet, /metrics for Prometheus."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import prometheus_client
from aiohttp import web

logger = logging.getLogger(__name__)

Problems = Callable[[], Iterable[str]]


@asynccontextmanager
async def serve(port: int, *routes: web.RouteDef) -> AsyncIterator[int]:
    """Serves the routes on all interfaces; yields the port, which is a free one if 0 was asked for."""
    application = web.Application()
    application.add_routes(routes)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, port=port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def probe(path: str, problems: Problems, notes: Problems = tuple) -> web.RouteDef:
    """Answers 200, or 503 with one problem a line. Notes are told either way, and change nothing."""

    async def answer(_: web.Request) -> web.Response:
        found = list(problems())
        if found:
            logger.warning("%s: %s", path, "; ".join(found))
        return web.Response(text="\n".join([*(found or ["ok"]), *notes()]), status=503 if found else 200)

    return web.get(path, answer)


class Metrics:
    """/metrics as Prometheus reads it. Anybody whom no policy keeps out may ask, at any rate.

    To write it takes time in proportion to what there is, in which nothing else goes on. So an answer is given again
    for nine times as long as it took to write: a tenth of the event loop's time goes into it, and no more.
    """

    def __init__(self, write: Callable[[], bytes] = prometheus_client.generate_latest) -> None:
        self._write = write
        self._body = b""
        self._until = float("-inf")  # on the monotonic clock

    async def answer(self, _: web.Request) -> web.Response:
        began = time.monotonic()
        if began >= self._until:
            self._body = self._write()
            ended = time.monotonic()
            self._until = ended + 9 * (ended - began)
        return web.Response(body=self._body, headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST})


def metrics() -> web.RouteDef:
    return web.get("/metrics", Metrics().answer)
