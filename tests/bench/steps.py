"""The operator as it is, and the longest steps of its event loop: `python -m tests.bench.steps`.

A step is what runs between two looks at the sockets: nothing else goes on meanwhile, no other tenant's pass, no probe
and no Lease. Its CPU time is the operator's own share, however busy the machine is. Told in the log when it ends.
"""

from __future__ import annotations

import asyncio
import atexit
import heapq
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

from llm_operator.__main__ import main

MOST = 10
SAID = re.compile(r"^longest step: (\d+) ms of CPU, (\d+) ms in all", re.MULTILINE)
_longest: list[tuple[float, float, int, str]] = []  # CPU seconds, seconds, its number
_run = asyncio.Handle._run
_count = 0


def measured(self: asyncio.Handle) -> None:
    global _count
    _count += 1
    wall, cpu = time.perf_counter(), time.thread_time()
    _run(self)
    spent = time.thread_time() - cpu
    if len(_longest) < MOST or spent > _longest[0][0]:
        step = (spent, time.perf_counter() - wall, _count, what(self))
        (heapq.heappush if len(_longest) < MOST else heapq.heapreplace)(_longest, step)


def what(handle: asyncio.Handle) -> str:
    """The task, or the callback."""
    callback: Any = handle._callback  # type: ignore[attr-defined]
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        return " → ".join((task.get_name(), *below(task.get_coro())))
    return repr(callback)


def below(coroutine: Any) -> Iterator[str]:
    """Where it waits now, which is where the step has led."""
    while coroutine is not None:
        if name := getattr(coroutine, "__qualname__", None):
            yield name
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)


def tell() -> None:
    for cpu, wall, _, said in sorted(_longest, reverse=True):
        print(f"longest step: {cpu * 1000:.0f} ms of CPU, {wall * 1000:.0f} ms in all, {said}", file=sys.stderr)


def longest_ms(log: str) -> int:
    """CPU milliseconds of the longest step that a log tells of."""
    return max(int(found[1]) for found in SAID.finditer(log))


if __name__ == "__main__":
    asyncio.Handle._run = measured  # type: ignore[method-assign]
    atexit.register(tell)
    main()
