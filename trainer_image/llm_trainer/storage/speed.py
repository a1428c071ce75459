"""How far a fetching is."""

from __future__ import annotations

import time
from typing import Any


class Speed:
    """How long what is left takes at the mean speed so far; what was there already is not counted as fetched."""

    def __init__(self) -> None:
        self._began, self._first = time.monotonic(), -1

    def figures(self, done: int, total: int) -> dict[str, Any]:
        if self._first < 0:
            self._first = done
        per_second = (done - self._first) / max(1e-9, time.monotonic() - self._began)
        left = (total - done) / per_second if per_second > 0 else None
        percent = int(100 * min(1.0, done / max(1, total)))
        return {
            "fetched_bytes": done, "fetch_bytes": total, "eta_seconds": left, "step": percent, "total_steps": 100,
        }  # fmt: skip
