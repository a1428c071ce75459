"""Who gets in: the key, and how many at the same time. What comes beyond is told to come again, and nothing is lost."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from llm_app.requests import RequestError

MOST_LATER = 60  # seconds; OpenAI's clients wait no longer
LATELY = 64  # turns
OPEN = ("/", "/health", "/ready")  # the page asks for the key itself


def check_key(key: str, path: str, headers: Mapping[str, str], *, metrics_open: bool) -> None:
    """Raises RequestError for whoever shows no key, or another one. ``key``: empty if none is wanted."""
    if not key or path in OPEN or (metrics_open and path == "/metrics"):
        return
    scheme, _, shown = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode(), key.encode()):
        raise RequestError(401, "invalid_api_key", "show the app's key: Authorization: Bearer …")


class Line:
    """Those who were refused, as if they stood in a line: each is told to come when all before it have had a turn.

    The line is as fast as turns have lately been. Told by less than that, a crowd before a slow model comes again and
    again, and takes as many requests as the square of its size; OpenAI's clients try three times.
    """

    def __init__(self, most: int, places: int) -> None:
        self._most, self._places = most, places
        self._seconds, self._turns = 0.0, 0  # how long a turn takes, lately
        self._end = 0.0  # the time that the last one was told

    def took(self, seconds: float) -> None:
        """One had its turn."""
        self._turns = min(self._turns + 1, LATELY)
        self._seconds += (seconds - self._seconds) / self._turns

    def later(self, now: float) -> int:
        """Whole seconds. Whom the line is too long for is told some time, not all of them the same one."""
        self._end = max(self._end, now) + max(self._seconds / self._most, 1 / self._places)
        if self._end >= now + MOST_LATER:
            self._end = now + MOST_LATER / 2
        return 1 + int(self._end - now)


class Turnstile:
    """``most`` are answered at a time and ``queue`` wait; all their bodies together have at most ``size`` bytes."""

    def __init__(self, most: int, queue: int, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._turns = asyncio.Semaphore(most)
        self._places, self._room = most + queue, size
        self._answered = self._admitted = 0
        self._line, self._clock = Line(most, most + queue), clock

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
            raise RequestError(429, "rate_limit_exceeded", said, retry_seconds=self._line.later(self._clock()))
        self._admitted += 1
        self._room -= size
        try:
            yield
        finally:
            self._admitted -= 1
            self._room += size

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self._turns:
            self._answered += 1
            began = self._clock()
            try:
                yield
            finally:
                self._answered -= 1
                self._line.took(self._clock() - began)
