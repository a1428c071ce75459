"""A tool that is one request to an HTTP server."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from llm_app.team import Bounds, Tool
from llm_app.tools import guard
from llm_app.tools.base import Offer, Result, ToolError, headers_of
from llm_app.tools.offers import known_offers

PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
BODILESS = ("GET", "DELETE")
BYTES = 4  # of a character at most


class HttpSource:
    """Arguments whose names stand in the URL are put there; the others are its query, or a body of JSON."""

    def __init__(self, tool: Tool) -> None:
        assert tool.http  # noqa: S101
        self._tool, self._http = tool, tool.http
        self._headers = headers_of(tool.http.headers)
        self._session = guard.session(tool.http.allowed_addresses)

    async def open(self) -> None:
        return

    async def offers(self) -> Sequence[Offer]:
        return known_offers(self._tool)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Result:
        del name
        placed = set(PLACE.findall(self._http.url))
        url = PLACE.sub(lambda found: segment(arguments.get(found[1])), self._http.url)
        others = {key: value for key, value in arguments.items() if key not in placed}
        bare = self._http.method in BODILESS
        sent: dict[str, Any] = (
            {"params": {key: plain(one) for key, one in others.items()}} if bare else {"json": others}
        )
        return await send(self._session, self._http.method, url, self._headers, self._tool.bounds, **sent)

    async def close(self) -> None:
        await self._session.close()


async def send(
    session: aiohttp.ClientSession, method: str, url: str | URL, headers: Mapping[str, str], bounds: Bounds, **sent: Any
) -> Result:
    """One request. Raises ToolError."""
    try:
        # another address might be told the headers, and be another tool
        async with session.request(method, url, headers=headers, allow_redirects=False, **sent) as response:
            text = await read(response, bounds.answer_characters)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if found := guard.blocked(error):
            raise ToolError(str(found), "blocked") from None
        raise ToolError(f"can't be reached: {type(error).__name__}") from None
    if 300 <= response.status < 400:
        raise ToolError(f"answered {response.status}, another address, which is not followed")
    if response.status >= 400:
        raise ToolError(f"answered {response.status}: {text[:500]}")
    return Result(text)


def segment(value: Any) -> str:
    """Of a path: with no sign that ends it, and no step up."""
    made = quote(plain(value), safe="")
    return made.replace(".", "%2E") if set(made) == {"."} else made


def plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


async def read(response: aiohttp.ClientResponse, characters: int) -> str:
    """As much as is shown, and no more: an answer may have no end."""
    got = bytearray()
    async for piece in response.content.iter_chunked(65_536):
        got += piece
        if len(got) > characters * BYTES:
            break
    try:
        text = bytes(got).decode(response.charset or "utf-8", errors="replace")
    except LookupError:
        raise ToolError(f"answered in {response.charset!r:.100}, an encoding that nobody knows") from None
    if "\0" in text:
        raise ToolError("answered something else than text")
    return text
