"""One writer for a folder of a shared claim, among pods of any node and training.

A file that its holder touches: locks of the kernel don't hold on every network file system, and clocks of nodes and
of the file server differ, so whoever waits looks whether the file's time moves, not how old it is.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llm_trainer.runtime.errors import StorageError
from llm_trainer.runtime.repeated import repeated

TOUCH_SECONDS = 5.0
STALE_SECONDS = 60.0  # without a touch: whoever held it has gone


@contextmanager
def held(lock: Path, stale: float = STALE_SECONDS) -> Iterator[Callable[[], None]]:
    """Wait for the lock and hold it; the body gets what raises StorageError once the lock is no longer its own."""
    token = uuid.uuid4().hex
    _take(lock, token, stale)
    lost = threading.Event()

    def touch() -> None:
        with suppress(OSError):  # a file server that is away for a moment; without a touch others would take it
            if _token(lock) not in (token, None):
                lost.set()
            elif not lost.is_set():
                os.utime(lock)

    def check() -> None:
        if lost.is_set():
            raise StorageError(f"{lock.parent} was taken over by another pod while this one stood still")

    try:
        with repeated("lock", min(TOUCH_SECONDS, stale / 4), touch):
            yield check
    finally:
        if _token(lock) == token:
            lock.unlink(missing_ok=True)


def _take(lock: Path, token: str, stale: float) -> None:
    lock.parent.mkdir(parents=True, exist_ok=True)
    seen, since = (0, ""), time.monotonic()
    while True:
        try:
            descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            pass
        else:
            os.write(descriptor, token.encode())
            os.close(descriptor)
            return
        now = (_time(lock), _token(lock) or "")
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > stale:
            _remove_stale(lock, seen[1])
        time.sleep(min(1.0, stale / 4))


def _remove_stale(lock: Path, token: str) -> None:
    """Of two that find it stale one moves it; who has moved a new one by that, puts it back."""
    aside = lock.with_name(f"{lock.name}.{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        lock.rename(aside)
        if _token(aside) != token:
            with suppress(FileExistsError):
                os.link(aside, lock)
        aside.unlink()


def _token(lock: Path) -> str | None:
    try:
        return lock.read_text()
    except FileNotFoundError:
        return None


def _time(lock: Path) -> int:
    try:
        return lock.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
