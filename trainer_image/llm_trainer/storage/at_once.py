"""Several requests at the same time, by threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def at_once(count: int, name: str, one: Callable[[Given], Made], given: Iterable[Given]) -> list[Made]:
    """In their order. The first failure ends it, when those under way have ended."""
    with ThreadPoolExecutor(count, name) as pool:
        waiting = [pool.submit(one, each) for each in given]
        try:
            return [each.result() for each in waiting]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
