"""A pool of connections to one server of OpenAI's API: the model's, or one that embeds."""

from __future__ import annotations

import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from llm_app.tracing import passing_on


class Connection:
    """``authority``: a file of certificates; where it isn't, those of the image are trusted."""

    def __init__(self, key: str, authority: Path, timeout: aiohttp.ClientTimeout, line_bytes: int = 1 << 16) -> None:
        context = ssl.create_default_context(cafile=authority) if authority.is_file() else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout,
            read_bufsize=line_bytes,
            trace_configs=[passing_on()],
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
