"""How far a fetching is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

WINDOW_SECONDS = 60.0


class Speed:
    """How long what is left takes at the speed of the last minute.

    Of all since the beginning it would be too short: what was there already is counted at once, too.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()  # times, and bytes that were there then; one a second

    def figures(self, done: int, total: int) -> dict[str, Any]:
        per_second = self._per_second(done)
        left = (total - done) / per_second if per_second > 0 else None
        percent = int(100 * min(1.0, done / max(1, total)))
        return {
            "fetched_bytes": done, "fetch_bytes": total, "eta_seconds": left, "step": percent, "total_steps": 100,
        }  # fmt: skip

    def _per_second(self, done: int) -> float:
        now = self._clock()
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()  # it begins anew, because what is listed has changed
        while len(self._seen) > 1 and self._seen[1][0] <= now - WINDOW_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0] if self._seen else (now, done)
        if not self._seen or now - self._seen[-1][0] >= 1:
            self._seen.append((now, done))
        return (done - before) / max(1e-9, now - since)
