"""A pod's processes: forked before anything heavy is imported, asked to leave together, ended together."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

FAREWELL_SECONDS = 30  # from the first failure to the kill of those that hang in a collective with the failed one


class Processes:
    """What a launcher, which is PID 1 of its container, does for the processes that it forked."""

    def __init__(self) -> None:
        self.living: dict[int, int] = {}  # pid → local rank
        self.ends: dict[int, int] = {}  # local rank → exit code, or the negative of a signal
        self._killed: set[int] = set()  # local ranks

    def start(self, work: Callable[[int], int], count: int) -> None:
        """Fork a process for each local rank; `work` gets the rank and returns its exit code.

        A SIGTERM that comes in between waits: a child must not pass it on.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        signal.signal(signal.SIGTERM, self._pass_on)
        sys.stdout.flush()
        sys.stderr.flush()
        for local_rank in range(count):
            if pid := os.fork():
                self.living[pid] = local_rank
            else:
                end(work, local_rank)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])

    def wait(self) -> dict[int, int]:
        """How each ended. At the first failure the others are asked to leave, then killed; a kill of ours is no end."""
        while self.living:
            pid, status = os.waitpid(-1, 0)
            if pid not in self.living:
                continue  # PID 1 also inherits the orphans of its container
            local_rank, code = self.living.pop(pid), os.waitstatus_to_exitcode(status)
            if code == -signal.SIGKILL and local_rank in self._killed:
                continue
            if code and not any(self.ends.values()):
                self._send(signal.SIGTERM)
                signal.signal(signal.SIGALRM, self._kill)
                signal.alarm(FAREWELL_SECONDS)
            self.ends[local_rank] = code
        signal.alarm(0)
        return self.ends

    def _send(self, number: int) -> None:
        for pid in self.living:
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(pid, number)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._send(number)

    def _kill(self, _number: int, _frame: FrameType | None) -> None:
        self._killed |= set(self.living.values())
        self._send(signal.SIGKILL)


def run_processes(work: Callable[[int], int], count: int) -> dict[int, int]:
    """Local rank → exit code, or the negative of the signal that ended the process."""
    processes = Processes()
    processes.start(work, count)
    return processes.wait()


def end(work: Callable[[int], int], local_rank: int) -> None:
    """The whole life of a forked process; never returns."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    try:
        code = work(local_rank)
    except BaseException:  # noqa: BLE001 -- a second launcher must not run on in the child
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # After a failure threads of a torn process group may never end; and taking torch apart would only delay the next.
    os._exit(code)
