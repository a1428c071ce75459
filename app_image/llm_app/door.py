"""Who gets in: the key, and how many at the same time. What comes beyond is told to come again, and nothing is lost."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from llm_app.requests import RequestError

MOST_LATER = 60  # seconds; OpenAI's clients wait no longer
OPEN = ("/", "/health", "/ready")  # the page asks for the key itself


def check_key(key: str, path: str, headers: Mapping[str, str], *, metrics_open: bool) -> None:
    """Raises RequestError for whoever shows no key, or another one. ``key``: empty if none is wanted."""
    if not key or path in OPEN or (metrics_open and path == "/metrics"):
        return
    scheme, _, shown = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode(), key.encode()):
        raise RequestError(401, "invalid_api_key", "show the app's key: Authorization: Bearer …")


class Turnstile:
    """``most`` are answered at a time and ``queue`` wait; all their bodies together have at most ``size`` bytes."""

    def __init__(self, most: int, queue: int, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._turns = asyncio.Semaphore(most)
        self._places, self._room = most + queue, size
        self._answered = self._admitted = 0
        self._clock, self._second, self._refused = clock, 0, 0

    @property
    def running(self) -> int:
        return self._answered

    @property
    def waiting(self) -> int:
        return self._admitted - self._answered

    @contextmanager
    def admitted(self, size: int) -> Iterator[None]:
        """Before its body is read, else a crowd of large ones would fill the memory. Raises RequestError."""
        if self._admitted == self._places or size > self._room:
            said = f"{self._answered} requests are answered and {self.waiting} wait; try again"
            raise RequestError(429, "rate_limit_exceeded", said, retry_seconds=self._later())
        self._admitted += 1
        self._room -= size
        try:
            yield
        finally:
            self._admitted -= 1
            self._room += size

    def _later(self) -> int:
        """Seconds. Who is refused in the same second is told to come in several, in groups that find a place.

        Else a crowd comes again as one, and most of it gives up: OpenAI's clients try three times.
        """
        if (now := int(self._clock())) != self._second:
            self._second, self._refused = now, 0
        self._refused += 1
        return min(MOST_LATER, 1 + self._refused // self._places)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self._turns:
            self._answered += 1
            try:
                yield
            finally:
                self._answered -= 1
