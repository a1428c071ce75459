"""A sign of life: what takes its time, and for how long, every 15 seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERVAL = 15.0


@contextmanager
def alive(what: str, state: Callable[[], str] = str) -> Iterator[None]:
    """Tell that something is being done, at once and for as long as it takes; `state` says how far it is."""
    over, began = threading.Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(INTERVAL):
            words = state()
            print(f"  {what} for {time.monotonic() - began:.0f} s{words and f': {words}'}", flush=True)

    print(f"  {what} …", flush=True)
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
