"""How kopf's watches fare, seen from the requests it makes: it tells nobody itself."""

from __future__ import annotations

import time
from collections.abc import Callable

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType

from llm_operator.kube.kinds import WATCHED

SLACK_SECONDS = 90.0  # kopf gives up a silent watch after 70 s, then lists or watches again


class Watches:
    """Knows when each kind was last watched, and tells when a kind had to be listed anew."""

    def __init__(self, watch_seconds: float, relisted: Callable[[str], None]) -> None:
        self._limit = watch_seconds + SLACK_SECONDS
        self._relisted = relisted
        self._requested: dict[str, float] = {}
        self._kinds = {kind.path(): kind.name for kind in WATCHED}

    async def see(self, request: aiohttp.ClientRequest, send: ClientHandlerType) -> aiohttp.ClientResponse:
        """An aiohttp middleware for kopf's session."""
        kind = self._kind(request.url.path)
        response = await send(request)
        if kind and response.ok:
            if request.url.query.get("watch"):
                self._requested[kind] = time.monotonic()
            elif kind in self._requested:
                # Events between the end of the old watch and this list are lost, deletions among them
                # (https://github.com/nolar/kopf: an index keeps such objects for ever).
                self._relisted(kind)
        return response

    def ages(self) -> dict[str, float]:
        """Seconds since each kind's watch was last requested, of the kinds that were listed."""
        return {kind: time.monotonic() - at for kind, at in self._requested.items()}

    def missing(self) -> list[str]:
        """Kinds that were never listed."""
        return [kind.name for kind in WATCHED if kind.name not in self._requested]

    def stale(self) -> list[str]:
        """Kinds whose watch should have been renewed by now."""
        return [kind for kind, age in self.ages().items() if age > self._limit]

    def _kind(self, path: str) -> str | None:
        if "/namespaces/" in path:
            root, _, rest = path.partition("/namespaces/")
            path = f"{root}/{rest.partition('/')[2]}"
        return self._kinds.get(path)
