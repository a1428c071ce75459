"""Start, find and end our own processes, by pid and start time, never by name."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


def run(*command: object, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; a failure raises RuntimeError with the command's own words."""
    words = [str(word) for word in command]
    done = subprocess.run(words, text=True, capture_output=True, check=False, env=os.environ | environment)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done


def wait(what: str, done: Callable[[], bool], seconds: float = 180) -> None:
    """Until it is done; what is waited for is told every 15 s."""
    began = told = time.monotonic()
    while not done():
        now = time.monotonic()
        if now > began + seconds:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        if now > told + 15:
            told = now
            print(f"waiting for {what} for {now - began:.0f} s", flush=True)
        time.sleep(0.1)


def start_time(pid: int) -> str | None:
    """The kernel's start tick of a process, so that a recycled pid is never taken for ours."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if state == "Z" else rest[18]


@dataclass(frozen=True)
class Processes:
    """Named daemons that belong to one state folder; each survives the Python process that started it."""

    state: Path

    def file(self, name: str) -> Path:
        return self.state / "run" / f"{name}.pid"

    def pid(self, name: str) -> int | None:
        file = self.file(name)
        if not file.exists():
            return None
        pid, tick = file.read_text().split()
        return int(pid) if start_time(int(pid)) == tick else None

    def start(self, name: str, command: Sequence[object]) -> None:
        if self.pid(name):
            return
        (self.state / "run").mkdir(parents=True, exist_ok=True)
        (self.state / "log").mkdir(exist_ok=True)
        with (self.state / "log" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.state,
            )
        self.file(name).write_text(f"{process.pid} {start_time(process.pid)}")

    def stop(self, name: str, *, grace: float = 10) -> None:
        """SIGTERM, and SIGKILL when the grace is over (at once when it is 0)."""
        if pid := self.pid(name):
            os.kill(pid, signal.SIGTERM if grace else signal.SIGKILL)
            deadline = time.monotonic() + grace
            while self.alive(name) and time.monotonic() < deadline:
                time.sleep(0.05)
            if self.alive(name):
                os.kill(pid, signal.SIGKILL)
                wait(f"the end of {name}", lambda: not self.alive(name), 10)
        self.file(name).unlink(missing_ok=True)

    def alive(self, name: str) -> bool:
        pid = self.pid(name)
        if pid:
            with contextlib.suppress(ChildProcessError):  # reap it if it is our own child
                os.waitpid(pid, os.WNOHANG)
        return self.pid(name) is not None

    def log_tail(self, name: str, lines: int = 15) -> str:
        return "\n".join((self.state / "log" / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])
