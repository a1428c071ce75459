"""Asks many targets the same outside of passes. A pass only reads what was said last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from llm_operator.kube.plan import GoneError, Key
from llm_operator.kube.workers import Workers

Target = TypeVar("Target")
Word = TypeVar("Word")

Ask = Callable[[Target, Word], Awaitable[tuple[Word, float]]]
"""From what a target said before to what it says now, and the seconds after which it is asked again.

Raises GoneError if there is nobody to ask any more.
"""
Wake = Callable[[Key], None]


class Poller(Generic[Target, Word]):
    """At most one target a key, ``count`` at the same time and ``per_second`` in all: with more the interval stretches.

    A target that doesn't answer can so delay other targets, and never a pass. ``unknown`` is the word of one that was
    not asked yet.
    """

    def __init__(self, name: str, ask: Ask[Target, Word], unknown: Word, *, count: int, per_second: float) -> None:
        self._ask = ask
        self._unknown = unknown
        self._workers = Workers(self._poll, name=name, count=count, resync_seconds=float("inf"))
        self._known: dict[Key, tuple[Target, Word]] = {}
        self._gap = 1 / per_second
        self._free_at = 0.0  # on the monotonic clock: when the next request may be sent
        self._wake: Wake = lambda _: None

    def follow(self, key: Key, target: Target | None) -> Word:
        """What the target said last; from now on it is asked. None: nobody is. Another target's word is void."""
        known = self._known.get(key)
        if known and known[0] == target:
            return known[1]
        if target is None:
            self._known.pop(key, None)
        else:
            self._known[key] = (target, self._unknown)
            self._workers.add(key)
        return self._unknown

    async def run(self, wake: Wake) -> None:
        """Until cancelled. Wakes the key whose target says something else than before."""
        self._wake = wake
        await self._workers.run()

    async def _poll(self, key: Key) -> float:
        if (known := self._known.get(key)) is None:
            raise GoneError
        await self.turn()
        target, before = known
        try:
            word, after = await self._ask(target, before)
        except GoneError:
            if self._known.get(key) is known:
                del self._known[key]
            raise
        if self._known.get(key) is not known:
            return 0.0  # the key has another target by now, or none
        self._known[key] = (target, word)
        if word != before:
            self._wake(key)
        return after

    async def turn(self) -> None:
        """Waits until a request may be sent; of an ask that sends several, each but the first has to wait by itself."""
        now = time.monotonic()
        at = max(now, self._free_at)
        self._free_at = at + self._gap
        await asyncio.sleep(at - now)
