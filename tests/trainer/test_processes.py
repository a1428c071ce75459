"""The launcher's part alone, on processes that import nothing: forks, signals and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.trainer.pods import END_SECONDS, ROOT

LAUNCHER = """
import json, os, signal, sys, time
from llm_trainer.runtime import processes
processes.FAREWELL_SECONDS = {farewell}
{before}
def work(rank):
    {work}
print(json.dumps(processes.run_processes(work, {count})), flush=True)
"""


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[str]]]:
    """Launchers that end with the test."""
    made: list[subprocess.Popen[str]] = []
    yield made
    for process in made:
        process.kill()
        process.wait()


def launch(
    ended: list[subprocess.Popen[str]], work: str, count: int = 2, farewell: int = 30, before: str = ""
) -> subprocess.Popen[str]:
    code = LAUNCHER.format(work="\n    ".join(work.splitlines()), count=count, farewell=farewell, before=before)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "trainer_image")}
    ended.append(subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True))
    return ended[-1]


def ends(launcher: subprocess.Popen[str]) -> dict[str, int]:
    written, _ = launcher.communicate(timeout=END_SECONDS)
    found: dict[str, int] = json.loads(written.splitlines()[-1])
    return found


def test_each_has_its_rank_and_its_exit_code(ended: list[subprocess.Popen[str]]) -> None:
    assert ends(launch(ended, "return 0", count=3)) == {"0": 0, "1": 0, "2": 0}


def test_at_a_failure_the_others_are_asked_to_leave(ended: list[subprocess.Popen[str]]) -> None:
    found = ends(launch(ended, "if rank == 1: return 65\ntime.sleep(600)"))
    assert found == {"0": -signal.SIGTERM, "1": 65}


def test_who_does_not_leave_is_killed_and_that_is_no_cause(ended: list[subprocess.Popen[str]]) -> None:
    work = (
        "if rank == 1: os.read(ready, 1); return 65\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.write(tell, b'.')\ntime.sleep(600)"
    )
    assert ends(launch(ended, work, farewell=1, before="ready, tell = os.pipe()")) == {"1": 65}


def test_a_kill_from_outside_is_a_cause(ended: list[subprocess.Popen[str]]) -> None:
    assert ends(launch(ended, "os.kill(os.getpid(), signal.SIGKILL)", count=1)) == {"0": -signal.SIGKILL}


def test_an_exception_that_nobody_caught_ends_the_process_alone(ended: list[subprocess.Popen[str]]) -> None:
    assert ends(launch(ended, "raise SystemExit", count=1)) == {"0": 1}


def test_sigterm_reaches_all(ended: list[subprocess.Popen[str]]) -> None:
    work = "signal.signal(signal.SIGTERM, lambda *_: os._exit(75))\nos.write(1, b'ready\\n')\ntime.sleep(600)"
    launcher = launch(ended, work)
    assert launcher.stdout
    assert [launcher.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    launcher.terminate()
    assert ends(launcher) == {"0": 75, "1": 75}


def test_orphans_of_the_container_are_no_ranks(ended: list[subprocess.Popen[str]]) -> None:
    """A launcher is PID 1 of its container, to which every orphan comes; here it is made their reaper."""
    reaper = "import ctypes; ctypes.CDLL(None).prctl(36, 1)"  # PR_SET_CHILD_SUBREAPER
    work = "if rank == 0: time.sleep(1); return 0\nif not os.fork(): time.sleep(0.3); os._exit(9)\nreturn 0"
    assert ends(launch(ended, work, before=reaper)) == {"0": 0, "1": 0}
