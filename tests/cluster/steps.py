"""Run named commands, some at the same time, and tell in plain lines what is done, how far, and for how long."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

INTERVAL = 20.0  # seconds between two signs of life
WIDTH = 100  # of what a command says of itself
LAST_WORDS = 30  # lines of the log of a command that failed
UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\xa0-\U0010ffff]")


class StepError(RuntimeError):
    """A command ended with another status than 0; the message has the end of its log."""


@dataclass(frozen=True)
class Step:
    """A command that starts when the steps named in `after` are done; one that isn't planned was done before."""

    name: str
    command: Sequence[object]
    after: tuple[str, ...] = ()
    folder: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    telling: str = r"\w"  # a line of its output that matches says what it is doing


@dataclass(frozen=True)
class Running:
    step: Step
    log: Path
    process: subprocess.Popen[bytes]
    began: float  # time.monotonic()


def in_order(steps: Iterable[Step]) -> list[Step]:
    """Each step after the one before it, and after what it waits for itself."""
    chained: list[Step] = []
    for step in steps:
        before = (chained[-1].name,) if chained else ()
        chained.append(dataclasses.replace(step, after=(*before, *step.after)))
    return chained


def startable(waiting: Iterable[Step], unfinished: Collection[str]) -> list[Step]:
    return [step for step in waiting if not set(step.after) & set(unfinished)]


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def last_line(text: str, telling: str) -> str:
    """The newest line of an output that says what is being done."""
    lines = (UNPRINTABLE.sub("", line).strip() for line in reversed(re.split(r"[\n\r]", text)))
    return next((line[:WIDTH] for line in lines if re.search(telling, line)), "")


def tail(file: Path, size: int = 65_536) -> str:
    """The end of a file."""
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - size))
        return log.read().decode(errors="replace")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(steps: Sequence[Step], logs: Path, interval: float = INTERVAL) -> None:
    """Run a plan to its end. Whatever ends it, no process of it is left.

    Raises:
        StepError: a command failed; those that ran beside it were ended.

    """
    if not steps:
        return
    logs.mkdir(parents=True, exist_ok=True)
    began = told = time.monotonic()
    width = len(str(len(steps)))
    titles = {step.name: f"[{i:>{width}}/{len(steps)}] {step.name}" for i, step in enumerate(steps, 1)}
    waiting, running = list(steps), list[Running]()
    try:
        while waiting or running:
            for step in startable(waiting, {step.name for step in (*waiting, *(one.step for one in running))}):
                say(f"{titles[step.name]} …")
                running.append(start(step, logs))
                waiting.remove(step)
            for one in [one for one in running if one.process.poll() is not None]:
                say(f"{titles[one.step.name]}: {ending(one)}")
                running.remove(one)
            if time.monotonic() - told > interval:
                told = time.monotonic()
                say(sign_of_life(running, len(steps) - len(waiting) - len(running), len(steps), told - began))
            time.sleep(0.1)
    finally:
        end([one.process for one in running])
    say(f"all done in {duration(time.monotonic() - began)}")


def start(step: Step, logs: Path) -> Running:
    log = logs / f"{re.sub('[^a-z0-9]+', '-', step.name.lower())}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in step.command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=step.folder,
            env=os.environ | step.environment,
            start_new_session=True,  # so that one signal ends it with all that it started
        )
    return Running(step, log, process, time.monotonic())


def ending(one: Running) -> str:
    """How a command ended, if it ended well."""
    took, status = duration(time.monotonic() - one.began), one.process.returncode
    if status:
        words = "\n".join(f"    {line}" for line in tail(one.log).splitlines()[-LAST_WORDS:])
        raise StepError(f"{one.step.name} failed with {status} after {took}:\n{words}\nThe whole log: {one.log}")
    return f"done in {took}"


def sign_of_life(running: Sequence[Running], done: int, planned: int, seconds: float) -> str:
    """What is being done now, for how long, and the newest word of each command."""
    lines = [f"    {duration(seconds)}: {done} of {planned} done"]
    for one in running:
        words = last_line(tail(one.log), one.step.telling)
        lines.append(f"    {one.step.name} for {duration(time.monotonic() - one.began)}{words and f': {words}'}")
    return "\n".join(lines)


def end(processes: Sequence[subprocess.Popen[bytes]], grace: float = 10) -> None:
    """End commands with all that they started."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    for process in processes:
        while is_running(process) and time.monotonic() < deadline:
            time.sleep(0.05)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what didn't listen
        process.wait()


def is_running(process: subprocess.Popen[bytes]) -> bool:
    """Whether the command or anything that it started still runs."""
    process.poll()  # a zombie would count
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
