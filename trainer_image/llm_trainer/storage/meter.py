"""Counts what is fetched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llm_trainer.runtime.repeated import repeated

SHOW_SECONDS = 1.0


class Meter:
    """Counts the bytes of all that is fetched, by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before = self._listed = 0  # bytes of all that was listed but the newest, and of that
        self._bytes = 0  # that are there

    def listed(self, count: int) -> None:
        """So many bytes of another URI are to be there."""
        with self._lock:
            self._before += self._listed
            self._listed = count

    def changed(self) -> None:
        """What was listed last is not what there is, and is listed anew."""
        with self._lock:
            self._listed, self._bytes = 0, self._before

    def more(self, count: int) -> None:
        """So many bytes more are there."""
        with self._lock:
            self._bytes += count

    @property
    def figures(self) -> tuple[int, int]:
        """Bytes that are there, of how many."""
        with self._lock:
            return self._bytes, self._before + self._listed

    @contextmanager
    def shown(self, show: Callable[[int, int], None]) -> Iterator[None]:
        """`show(bytes, total)` about each second and at the end.

        By a clock and not by what arrives: a server that stalls, or another who holds the cache, is shown as it is.
        """
        try:
            with repeated("meter", SHOW_SECONDS, lambda: show(*self.figures)):
                yield
        finally:
            show(*self.figures)
