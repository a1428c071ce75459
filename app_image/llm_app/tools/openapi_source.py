"""The operations of an OpenAPI document as tools, each called NAME_OPERATION."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from llm_app.team import OpenApi, Tool
from llm_app.tools import guard
from llm_app.tools.base import Offer, Result, ToolError, headers_of
from llm_app.tools.http import plain, segment, send
from llm_app.tools.offers import of_document
from llm_app.tools.openapi import BODY, MOST_BYTES, PLACE, DocumentError, Operation, Parameter

logger = logging.getLogger(__name__)


class OpenApiSource:
    """``open`` reads the document once: a pod offers the same operations for as long as it lives."""

    def __init__(self, tool: Tool) -> None:
        assert tool.openapi  # noqa: S101
        self._tool, self._openapi = tool, tool.openapi
        self._headers = headers_of(tool.openapi.headers)
        self._session = guard.session(tool.openapi.allowed_addresses)
        self._operations: dict[str, Operation] = {}
        self._offers: list[Offer] = []

    async def open(self) -> None:
        """Raises ValueError with what is wrong with the document."""
        try:
            text = await document_of(self._openapi, self._session, self._tool.bounds.timeout_seconds)
            for offer, one in of_document(self._tool.name, self._openapi, text):
                self._operations[offer.name] = one
                self._offers.append(offer)
                for left_out in one.left_out:
                    logger.warning("tool %s: a model can't give %s", offer.name, left_out)
        except DocumentError as error:
            raise ValueError(f"spec.tools: {self._tool.name}: its document {error}") from None

    async def offers(self) -> Sequence[Offer]:
        return self._offers

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Result:
        one = self._operations[name]
        headers = {**self._headers, **headers_given(one, arguments)}
        sent: dict[str, Any] = {}
        if one.content and BODY in arguments:
            sent["data"] = json.dumps(arguments[BODY], ensure_ascii=False).encode()
            headers["Content-Type"] = one.content
        url = url_of(self._openapi.url, one, arguments)
        return await send(self._session, one.method, url, headers, self._tool.bounds, **sent)

    async def close(self) -> None:
        await self._session.close()


async def document_of(openapi: OpenApi, session: aiohttp.ClientSession, seconds: float) -> str:
    """Raises DocumentError."""
    if openapi.document:
        return openapi.document
    try:
        if openapi.path:
            with Path(openapi.path).open("rb") as file:  # noqa: ASYNC230 -- before the server listens
                found = file.read(MOST_BYTES + 1)
        else:
            found = await fetched(openapi.location, session, seconds)
        if len(found) > MOST_BYTES:
            raise DocumentError(f"has more than {MOST_BYTES:,} bytes; keep the operations that are used")
        return found.decode()
    except UnicodeDecodeError:
        raise DocumentError("is no text in UTF-8") from None
    except (OSError, aiohttp.ClientError, TimeoutError) as error:
        said = guard.blocked(error) or (f"{type(error).__name__}: {error}" if openapi.path else type(error).__name__)
        raise DocumentError(f"at {openapi.path or openapi.location} can't be read: {said}") from None


async def fetched(url: str, session: aiohttp.ClientSession, seconds: float) -> bytes:
    """Without the headers of the tool, which are its server's alone."""
    timeout = aiohttp.ClientTimeout(total=seconds)
    async with session.get(url, allow_redirects=False, timeout=timeout) as response:
        if response.status != 200:
            raise DocumentError(f"at {url} can't be read: answered {response.status}")
        got = bytearray()
        async for piece in response.content.iter_chunked(65_536):
            got += piece
            if len(got) > MOST_BYTES:
                break
        return bytes(got)


def url_of(base: str, one: Operation, arguments: Mapping[str, Any]) -> URL:
    """With all that is of the path and the query in its place, as it is: nothing of it can be another part."""
    given = {two.name: two for two in one.parameters if two.place == "path"}
    path = PLACE.sub(lambda found: segment(joined(given[found[1]], arguments)), one.path)
    query = [pair for two in one.parameters if two.place == "query" for pair in pairs(two, arguments)]
    return URL(base.rstrip("/") + path, encoded=True).extend_query(query)


def pairs(one: Parameter, arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    value = arguments.get(one.argument)
    if value is None:
        return []
    if isinstance(value, list) and not one.separator:
        return [(one.name, plain(each)) for each in value]
    return [(one.name, joined(one, arguments))]


def joined(one: Parameter, arguments: Mapping[str, Any]) -> str:
    value = arguments.get(one.argument)
    return (one.separator or ",").join(map(plain, value)) if isinstance(value, list) else plain(value)


def headers_given(one: Operation, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Raises ToolError."""
    made = {}
    for two in one.parameters:
        if two.place == "header" and arguments.get(two.argument) is not None:
            value = joined(two, arguments)
            if not (value.isascii() and value.isprintable()):
                raise ToolError(f"the arguments are wrong: {two.argument} must be of printable ASCII", "invalid")
            made[two.name] = value
    return made
