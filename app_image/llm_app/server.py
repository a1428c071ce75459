"""``python -m llm_app.server``: an OpenAI API before a served model, with its prompt and its knowledge, and a page."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
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

from llm_app import tracing
from llm_app.away import StoreError
from llm_app.certificate import Certificate
from llm_app.chat import Chat
from llm_app.citations import told
from llm_app.config import API_KEY, CONFIG_FOLDER, MODEL_API_KEY, PORT, SERVER_FILE, TLS, Server
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
IDLE_SECONDS = 5.0  # after which a connection of a pod that leaves is closed
BODY_SECONDS = 60.0  # until it is there
PAGE = Path(__file__).with_name("page.html")
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
FAILED = RequestError(500, "internal_error", "the app has failed; its log has more")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """The paths. ``key``: what requests must show; empty: nothing."""

    def __init__(self, chat: Chat, figures: Figures, key: str = "") -> None:
        self._chat, self._figures, self._key = chat, figures, key
        self._turnstile = Turnstile(chat.config.concurrency, chat.config.queue, BODIES_BYTES)
        self.leaves, self.busy, self.last = False, 0, time.monotonic()  # requests, and when one began or ended

    def application(self) -> web.Application:
        made = web.Application(middlewares=[self._watched], client_max_size=BODY_BYTES)
        made.on_response_prepare.append(self._say_goodbye)
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
        if request.method != "POST" or not known:
            return await self._answered(request, handler, path)
        attributes = {"http__request__method": request.method, "http__route": path}
        with tracing.of_request(f"{request.method} {path}", request.headers, **attributes) as told:
            response = await self._answered(request, handler, path)
            told.set_attribute("http.response.status_code", response.status)
            if response.status >= 500:
                tracing.failed(told, str(response.status))
            return response

    async def _answered(self, request: web.Request, handler: Handler, path: str) -> web.StreamResponse:
        self.busy, self.last = self.busy + 1, time.monotonic()
        try:
            check_key(self._key, request.path, request.headers, metrics_open=self._chat.config.metrics_without_key)
            response = await handler(request)
        except RequestError as error:
            headers = {"Retry-After": str(error.retry_seconds)} if error.status in (429, 503) else None
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
            response = web.json_response(FAILED.body(), status=FAILED.status)
        finally:
            self.busy, self.last = self.busy - 1, time.monotonic()
        self._figures.requests.labels(path, str(response.status)).inc()
        return response

    async def _say_goodbye(self, _: web.Request, response: web.StreamResponse) -> None:
        """So that clients send no request on a connection that is closed meanwhile, which would be lost."""
        if self.leaves:
            response.force_close()
            response.headers["Connection"] = "close"  # aiohttp has written its headers before it asks

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
        """With what the page asks for: whether the app keeps conversations."""
        keeps = bool(self._chat.config.team and self._chat.config.team.sessions)
        one = {"id": self._chat.config.name, "object": "model", "owned_by": "llm-operator", "sessions": keeps}
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
            except ConnectionError:  # the client has gone
                raise
            except Exception:
                logger.exception("%s, after its first piece", request.path)
                await response.write(event(FAILED.body()))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def event(piece: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(piece, ensure_ascii=False).encode() + b"\n\n"


def size_of(request: web.Request) -> int:
    """Of its body, as far as it may be read; one that comes in chunks does not tell."""
    return min(BODY_BYTES, BODY_BYTES if request.content_length is None else request.content_length)


async def body_of(request: web.Request) -> object:
    """Raises RequestError; also for one that comes too slowly: it has a place that others wait for."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            text = await request.text()
    except TimeoutError:
        said = f"the body was not there in {BODY_SECONDS:g} seconds; send it at once"
        raise RequestError(408, "request_timeout", said, "body") from None
    except (ValueError, LookupError):  # no such encoding, or not in it
        text = ""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
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


def allow_connections() -> None:
    """As many as the node lets: who is told to come again needs a connection too."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def goodbye(runner: web.AppRunner, api: Api, seconds: float) -> None:
    """Until no client is connected any more, or those that are have asked nothing for a while.

    What was asked is answered, and what is asked after it on the same connection too: a client whose stream ends may
    send its next request at that moment.
    """
    until = time.monotonic() + seconds
    while runner.server and runner.server.connections and time.monotonic() < until:
        if not api.busy and time.monotonic() - api.last > IDLE_SECONDS:
            return
        await asyncio.sleep(0.05)


async def serve(config: Server, port: int = PORT) -> None:
    """Until SIGTERM or SIGINT. Loads all knowledge before it listens."""
    allow_connections()
    figures = Figures()
    certificate = Certificate(Path(TLS)) if config.tls else None
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(tracing.traced(config.tracing, config.name, config.revision))
        retriever = await stack.enter_async_context(opened(config.knowledge, figures))
        client = await stack.enter_async_context(Client(config.model, os.environ.get(MODEL_API_KEY, "")))
        chat = await stack.enter_async_context(chat_of(config, retriever, client, figures))
        api = Api(chat, figures, os.environ.get(API_KEY, ""))
        runner = web.AppRunner(
            api.application(), access_log=None, shutdown_timeout=IDLE_SECONDS, handler_cancellation=True
        )
        await runner.setup()
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        renewed = asyncio.ensure_future(certificate.follow()) if certificate else None
        try:
            context = certificate.context if certificate else None
            await web.SockSite(runner, listening(port), ssl_context=context).start()
            print(f"{config.name} revision {config.revision} answers on port {port}", flush=True)
            await stopped.wait()
            api.leaves = True
            await goodbye(runner, api, config.drain_seconds)
        finally:
            if renewed:
                renewed.cancel()
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
