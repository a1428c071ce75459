"""The tools of an MCP server that speaks streamable HTTP."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx2
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from llm_app.team import Tool
from llm_app.tools import guard
from llm_app.tools.base import Offer, Result, ToolError, headers_of
from llm_app.tools.schema import SchemaError, strict

logger = logging.getLogger(__name__)
LIST_SECONDS = 60.0  # for which a list of tools holds
AWAY_SECONDS = 10.0  # for which a server that is away is not asked again: each try may take as long as a call
MOST_TOOLS, MOST_BYTES = 64, 8 << 20  # bytes of an answer, which the library reads whole


class Transport(httpx2.AsyncBaseTransport):
    """The client's requests by a session whose connections are checked."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        headers = [(name, value) for name, value in request.headers.multi_items() if name != "host"]
        try:
            response = await self._session.request(
                request.method, str(request.url), data=body or None, headers=headers, allow_redirects=False
            )
        except aiohttp.ClientError as error:
            raise httpx2.ConnectError(str(guard.blocked(error) or type(error).__name__)) from error
        kept = [(name, value) for name, value in response.headers.items() if name.lower() != "content-encoding"]
        return httpx2.Response(response.status, headers=kept, stream=Stream(response))


class Stream(httpx2.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MOST_BYTES
        async for piece in self._response.content.iter_any():
            left -= len(piece)
            if left < 0:
                raise httpx2.ReadError(f"it answers more than {MOST_BYTES:,} bytes")
            yield piece

    async def aclose(self) -> None:
        self._response.close()


class McpSource:
    """Asks by a session for each call, which a restart of the server does not break. Tools are called NAME_TOOL."""

    def __init__(self, tool: Tool) -> None:
        assert tool.mcp  # noqa: S101
        self._tool, self._mcp = tool, tool.mcp
        self._headers = headers_of(tool.mcp.headers)
        self._http = guard.session(tool.mcp.allowed_addresses)
        self._offers: list[Offer] = []
        self._listed = -LIST_SECONDS

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[ClientSession]:
        timeout = float(self._tool.bounds.timeout_seconds)
        client = httpx2.AsyncClient(transport=Transport(self._http), headers=self._headers, timeout=timeout)
        try:
            async with (
                client,
                streamable_http_client(self._mcp.url, http_client=client) as (read, write),
                ClientSession(read, write, read_timeout_seconds=timeout) as session,
            ):
                await session.initialize()
                yield session
        except ToolError:
            raise
        except Exception as error:  # noqa: BLE001 -- whatever the library raises, the model is told
            found = guard.blocked(error)
            if found:
                raise ToolError(str(found), "blocked") from None
            raise ToolError(f"the MCP server does not do it: {innermost(error)}"[:1000]) from None

    async def open(self) -> None:
        return

    async def offers(self) -> Sequence[Offer]:
        """Those that were listed last, if the server is away now."""
        if time.monotonic() - self._listed > LIST_SECONDS:
            try:
                async with self._session() as session:
                    found = await session.list_tools()
                self._offers = list(self._taken(found.tools))
                self._listed = time.monotonic()
            except ToolError as error:
                logger.warning("tool %s: %s", self._tool.name, error)
                self._listed = time.monotonic() - LIST_SECONDS + AWAY_SECONDS
        return self._offers

    def _taken(self, tools: Sequence[Any]) -> Sequence[Offer]:
        made = []
        for one in tools[:MOST_TOOLS]:
            if self._mcp.tools and one.name not in self._mcp.tools:
                continue
            given = dict(one.input_schema)
            try:
                made.append(Offer(f"{self._tool.name}_{one.name}", one.description or "", given, strict(given)))
            except SchemaError as error:
                logger.warning("tool %s of %s is left out: its schema: %s", one.name, self._tool.name, error)
        return made

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Result:
        async with self._session() as session:
            answer: Any = await session.call_tool(name.removeprefix(f"{self._tool.name}_"), dict(arguments))
        text = "\n".join(one.text for one in getattr(answer, "content", ()) if getattr(one, "type", "") == "text")
        if getattr(answer, "is_error", False):
            raise ToolError(text[:1000] or "the MCP server tells an error without words")
        return Result(text)

    async def close(self) -> None:
        await self._http.close()


def innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
