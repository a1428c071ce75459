"""``python -m llm_app.server``: an OpenAI API before a served model, with its prompt and its knowledge, and a page."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, nullcontext
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from llm_app.away import StoreError
from llm_app.chat import Chat
from llm_app.citations import told
from llm_app.config import API_KEY, CONFIG_FOLDER, MODEL_API_KEY, PORT, SERVER_FILE, Server
from llm_app.door import Turnstile, check_key
from llm_app.figures import Figures
from llm_app.model import Client
from llm_app.opening import opened
from llm_app.requests import ChatRequest, RequestError, RetrieveRequest, chat_request, read
from llm_app.retrieval import Retriever
from llm_app.store import IndexDamagedError
from llm_trainer.protocol import ExitCode

logger = logging.getLogger(__name__)

BODY_BYTES = 4 << 20  # of a request; a million characters of Japanese have 3 MB
BODIES_BYTES = 64 << 20  # of all that are answered or wait
RETRY_SECONDS = "1"
PAGE = Path(__file__).with_name("page.html")
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """The paths. ``key``: what requests must show; empty: nothing."""

    def __init__(self, chat: Chat, figures: Figures, key: str = "") -> None:
        self._chat, self._figures, self._key = chat, figures, key
        self._turnstile = Turnstile(chat.config.concurrency, chat.config.queue, BODIES_BYTES)

    def application(self) -> web.Application:
        made = web.Application(middlewares=[self._watched], client_max_size=BODY_BYTES)
        made.add_routes([
            web.get("/", self.page),
            web.get("/health", self.health),
            web.get("/ready", self.health),  # the indexes were loaded before the port was open
            web.get("/metrics", self.metrics),
            web.get("/v1/models", self.models),
            web.post("/v1/chat/completions", self.completions),
            web.post("/v1/retrieve", self.retrieve),
        ])  # fmt: skip
        return made

    @web.middleware
    async def _watched(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Each error has OpenAI's shape, and each request is counted by a path that is known."""
        known = request.match_info.route.resource
        path = known.canonical if known else "other"
        try:
            check_key(self._key, request.path, request.headers, metrics_open=self._chat.config.metrics_without_key)
            response = await handler(request)
        except RequestError as error:
            headers = {"Retry-After": RETRY_SECONDS} if error.status in (429, 503) else None
            response = web.json_response(error.body(), status=error.status, headers=headers)
        except web.HTTPException as error:
            problem = RequestError(
                error.status, "not_found" if error.status == 404 else "invalid_request", error.reason
            )
            response = web.json_response(problem.body(), status=error.status)
        except ConnectionError:  # the client has gone
            raise
        except Exception:
            logger.exception("%s %s", request.method, path)
            response = web.json_response(
                RequestError(500, "internal_error", "the app has failed; its log has more").body(), status=500
            )
        self._figures.requests.labels(path, str(response.status)).inc()
        return response

    async def page(self, _: web.Request) -> web.StreamResponse:
        headers = {"Content-Security-Policy": PAGE_POLICY, "X-Content-Type-Options": "nosniff"}
        return web.Response(text=PAGE.read_text(encoding="utf-8"), content_type="text/html", headers=headers)

    async def health(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"revision": self._chat.config.revision})

    async def metrics(self, _: web.Request) -> web.StreamResponse:
        self._figures.waiting.set(self._turnstile.waiting)
        self._figures.running.set(self._turnstile.running)
        return web.Response(body=generate_latest(self._figures.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def models(self, _: web.Request) -> web.StreamResponse:
        one = {"id": self._chat.config.name, "object": "model", "owned_by": "llm-operator"}
        return web.json_response({"object": "list", "data": [one]})

    async def retrieve(self, request: web.Request) -> web.StreamResponse:
        with self._turnstile.admitted(size_of(request)):
            wanted = read(RetrieveRequest, await body_of(request))
            found = await self._chat.search(wanted)
        problems = {"problems": found.problems} if found.problems else {}
        return web.json_response({"object": "list", "data": [told(one) for one in found.passages], **problems})

    async def completions(self, request: web.Request) -> web.StreamResponse:
        began = time.perf_counter()
        with self._turnstile.admitted(size_of(request)):
            wanted = chat_request(await body_of(request), self._chat.config)
            async with self._turnstile.turn():
                try:
                    if wanted.stream:
                        return await self._stream(request, wanted, began)
                    answer = await self._chat.answer(wanted)
                    self._figures.first.observe(time.perf_counter() - began)
                    return web.json_response(answer)
                finally:
                    self._figures.whole.observe(time.perf_counter() - began)

    async def _stream(self, request: web.Request, wanted: ChatRequest, began: float) -> web.StreamResponse:
        """An error before the first piece is an answer like any other; one after it is an event, as vLLM's are."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        async with aclosing(self._chat.pieces(wanted)) as pieces:
            first: dict[str, Any] | None = await anext(pieces, None)
            self._figures.first.observe(time.perf_counter() - began)
            await response.prepare(request)
            try:
                if first is not None:
                    await response.write(event(first))
                async for piece in pieces:
                    await response.write(event(piece))
            except RequestError as error:
                self._figures.broken.inc()
                await response.write(event(error.body()))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def event(piece: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(piece, ensure_ascii=False).encode() + b"\n\n"


def size_of(request: web.Request) -> int:
    """Of its body, as far as it may be read; one that comes in chunks does not tell."""
    return min(BODY_BYTES, BODY_BYTES if request.content_length is None else request.content_length)


async def body_of(request: web.Request) -> object:
    try:
        return json.loads(await request.text())
    except (ValueError, LookupError, RecursionError):  # no JSON, no such encoding
        raise RequestError(400, "invalid_json", "the body is no JSON", "body") from None


def listening(port: int) -> socket.socket:
    """On all addresses of the pod, of either family."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        except OSError:
            pass  # a node without IPv6
    return socket.create_server(("", port), backlog=1024)


def chat_of(
    config: Server, retriever: Retriever, client: Client, figures: Figures
) -> AbstractAsyncContextManager[Chat]:
    """What agents need is imported where there are any: it takes 80 MiB."""
    if config.team is None:
        return nullcontext(Chat(config, retriever, client, figures))
    from llm_app.agents.chat import team_chat

    return team_chat(config, retriever, client, figures)


async def serve(config: Server, port: int = PORT) -> None:
    """Until SIGTERM or SIGINT. Loads all knowledge before it listens."""
    figures = Figures()
    async with AsyncExitStack() as stack:
        retriever = await stack.enter_async_context(opened(config.knowledge, figures))
        client = await stack.enter_async_context(Client(config.model, os.environ.get(MODEL_API_KEY, "")))
        chat = await stack.enter_async_context(chat_of(config, retriever, client, figures))
        api = Api(chat, figures, os.environ.get(API_KEY, ""))
        runner = web.AppRunner(
            api.application(), access_log=None, shutdown_timeout=config.drain_seconds, handler_cancellation=True
        )
        await runner.setup()
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        try:
            await web.SockSite(runner, listening(port)).start()
            print(f"{config.name} revision {config.revision} answers on port {port}", flush=True)
            await stopped.wait()
        finally:
            await runner.cleanup()  # takes no more, and waits for what is open


def main() -> int:
    try:
        config = Server.model_validate_json((Path(CONFIG_FOLDER) / SERVER_FILE).read_text(encoding="utf-8"))
        asyncio.run(serve(config))
    except (IndexDamagedError, StoreError, OSError) as error:
        print(error, file=sys.stderr)
        return ExitCode.STORAGE
    except ValueError as error:
        print(error, file=sys.stderr)
        return ExitCode.CONFIGURATION
    return ExitCode.SUCCEEDED


if __name__ == "__main__":
    sys.exit(main())
