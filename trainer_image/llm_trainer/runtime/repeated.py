"""What is done again and again beside a block of work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(name: str, seconds: float, call: Callable[[], object]) -> Iterator[None]:
    """`call` after every so many seconds of the block, by a thread of this name; none runs on behind it."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(seconds):
            call()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
