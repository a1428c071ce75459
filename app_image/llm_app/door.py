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


class Line:
    """Those who were refused, as if they stood in a line: each is told to come when all before it have had a place.

    How fast places come is told by those that have come since the line stands; what it doesn't know yet it takes for
    fast, as who comes too late leaves a model without work. Told by less, a crowd before a slow model takes as many
    requests as the square of its size; OpenAI's clients try three times.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._since: float | None = None  # None: there is none
        self._came = 0
        self._end = 0.0  # the time that the last one was told

    def moves(self, *, nobody_waits: bool) -> None:
        """A place has become free."""
        self._came += 1
        if nobody_waits:
            self._since = None

    def later(self, now: float) -> int:
        """Whole seconds. Whom the line is too long for is told some time, not all of them the same one."""
        if self._since is None:
            self._since, self._came, self._end = now, 0, now
        pace = min(self._places, (self._places + self._came) / (1 + now - self._since))
        self._end = max(self._end, now) + 1 / pace
        if self._end >= now + MOST_LATER:
            self._end = now + MOST_LATER / 2
        return 1 + int(self._end - now)


class Turnstile:
    """``most`` are answered at a time and ``queue`` wait; all their bodies together have at most ``size`` bytes."""

    def __init__(self, most: int, queue: int, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._turns = asyncio.Semaphore(most)
        self._places, self._room = most + queue, size
        self._answered = self._admitted = 0
        self._line, self._clock = Line(most + queue), clock

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
            self._line.moves(nobody_waits=self.waiting <= 0)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self._turns:
            self._answered += 1
            try:
                yield
            finally:
                self._answered -= 1
