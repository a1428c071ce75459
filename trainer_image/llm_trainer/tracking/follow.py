"""A tracker's process: reads the history as it grows and tells it, until its standard input ends.

What it can't do is a line of its standard output, and the first becomes a notice. It is told what to do by the first
line of its standard input, and imports of the trainer only what needs no library.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

POLL_SECONDS = 1.0
END_SECONDS = 120  # after the end of the input; rank 0, which waits for less, may be gone
BATCH_ROWS = 200
MOST_BYTES = 8 << 20  # of rows that are not told yet; of a tracker that is so far behind the oldest are left out
PAUSES = (1.0, 5.0, 30.0, 60.0)  # seconds after a failure, then after one more
SLOW_SECONDS = 300  # after which a server, or a volume, that takes nothing and refuses nothing is told
NICE = 19

Row = dict[str, Any]


class History:
    """The file's new rows at each look. A rollback or another attempt replaces it; no row comes twice."""

    def __init__(self, file: Path, attempt: int) -> None:
        self._file, self._attempt = file, attempt
        self._inode, self._at, self._newest = 0, 0, 0.0
        self.left_out = False

    def rows(self) -> list[Row]:
        try:
            with self._file.open("rb") as stream:
                state = os.fstat(stream.fileno())
                if state.st_ino != self._inode or state.st_size < self._at:
                    self._inode, self._at = state.st_ino, 0
                if state.st_size - self._at > MOST_BYTES:
                    self._at, self.left_out = state.st_size - MOST_BYTES, True
                    stream.seek(self._at)
                    self._at += len(stream.readline())
                stream.seek(self._at)
                data = stream.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        found = [row for line in whole.splitlines() if (row := self._own(line))]
        self._newest = max([self._newest, *(row["time"] for row in found)])
        return found

    def _own(self, line: bytes) -> Row | None:
        """Of this attempt, as those before have told theirs, and not told yet."""
        try:
            row = json.loads(line)
        except ValueError:
            return None
        if not isinstance(row, dict) or row.get("attempt") != self._attempt:
            return None
        if not isinstance(row.get("step"), int) or not isinstance(row.get("time"), int | float):
            return None
        return row if row["time"] > self._newest else None


def figures(row: Row) -> dict[str, float]:
    """What is told of a row, by name: a tracker takes numbers alone, and NaN of those that are none."""
    own = ("loss", "learningRate", "gradNorm", "tokensPerSecond")
    found = {name: number(row[name]) for name in own if name in row}
    for key, prefix in (("figures", ""), ("evaluation", "heldOut/"), ("spent", "seconds/")):
        if isinstance(row.get(key), dict):
            found |= {f"{prefix}{name}": number(value) for name, value in row[key].items()}
    for one in row["scores"] if isinstance(row.get("scores"), list) else []:
        if isinstance(one, dict):
            found[f"score/{one.get('task')}/{one.get('metric')}"] = number(one.get("value"))
    return {name[:200]: value for name, value in found.items() if value is not None}


def number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def follow(asked: Row) -> None:
    """Until the input ends and all is told, or the kernel ends this."""
    from llm_trainer.tracking.sinks import SINKS

    history = History(Path(asked["history"]), asked["attempt"])
    sink, waiting, failures, not_before, said = None, [], 0, 0.0, False
    for last in ticks():
        waiting += history.rows()
        if history.left_out and not said:
            said = True
            say("the server is so slow that figures of some steps are left out")
        if time.monotonic() < not_before and not last:
            waiting = waiting[-BATCH_ROWS * 50 :]
            continue
        try:
            with told_if_slow(last=last):
                sink = sink or SINKS[asked["kind"]](asked)
                while waiting:
                    sink.tell(waiting[:BATCH_ROWS])
                    del waiting[:BATCH_ROWS]
                if last:
                    sink.close()
            failures = 0
        except Exception as error:  # noqa: BLE001 -- whatever a library raises; it must be said, and tried again
            say(told_of(error))
            not_before = time.monotonic() + PAUSES[min(failures, len(PAUSES) - 1)]
            failures += 1


@contextmanager
def told_if_slow(*, last: bool) -> Iterator[None]:
    """An answer that comes byte by byte never ends a library's wait; how long the last one takes, rank 0 decides."""
    if last:
        yield
        return
    signal.signal(signal.SIGALRM, lambda *_: say(f"what it is told is not taken, for {SLOW_SECONDS} s now"))
    signal.alarm(SLOW_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def ticks() -> Iterator[bool]:
    """Each second; True for the last time, when nobody writes to the history any more."""
    while not select.select([sys.stdin], [], [], POLL_SECONDS)[0]:
        yield False
    signal.alarm(END_SECONDS)
    yield True


def told_of(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"the image has no library for it ({error}): build it with TRACKERS=with, see docs/howto/tracking.md"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def say(why: str) -> None:
    try:
        sys.__stdout__.write(why + "\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]
    except OSError:  # nobody hears it any more
        os._exit(1)


def main() -> None:
    os.nice(NICE)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a pod's end is told by the end of the input
    asked = json.loads(sys.stdin.readline())
    sys.stdout = sys.stderr  # what a library prints is no complaint of ours
    follow(asked)
    os._exit(0)  # libraries' threads may wait for a server


if __name__ == "__main__":
    main()
