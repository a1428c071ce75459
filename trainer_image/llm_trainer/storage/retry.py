"""Patience with servers: waits double, at random, so that pods that failed together don't come back together."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from llm_trainer.storage.remote_files import TransientError

TRIES = 8  # in a row that bring nothing
LONGEST_WAIT = 60.0  # seconds between two

Found = TypeVar("Found")
Sleep = Callable[[float], None]


def pause(failures: int, asked: float) -> float:
    """Seconds before the next try, after so many in a row failed. `asked`: by the server, 0 if it says nothing."""
    return asked or min(LONGEST_WAIT, random.uniform(0.5, 1.0) * 2**failures)  # noqa: S311


def patiently(attempt: Callable[[], Found], sleep: Sleep = time.sleep) -> Found:
    """Raises the TransientError of the last of TRIES."""
    for failures in range(1, TRIES):
        try:
            return attempt()
        except TransientError as error:
            sleep(pause(failures, error.wait))
    return attempt()
