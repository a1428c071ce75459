"""A process that stands still ends the attempt within some steps' time, and one that is slow never does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from llm_trainer.protocol import ExitCode
from tests.trainer.conftest import RunPods, Stage
from tests.trainer.pods import END_SECONDS, ROOT

SCRIPT = """
import contextlib, json, sys, time
from llm_trainer.runtime.watchdog import Watchdog
patience, least, acts = json.loads(sys.argv[1])
watchdog = Watchdog(patience, least)
for act, seconds in acts:
    with watchdog.long() if act == "long" else contextlib.nullcontext():
        time.sleep(seconds)
    if act == "step":
        watchdog.stepped(seconds)
print("went on")
"""


@pytest.mark.parametrize(
    ("patience", "least", "acts", "ends"),
    [
        (1000.0, 0.2, [("step", 0.01)] * 9 + [("hang", 60.0)], True),
        (1000.0, 3.0, [("step", 0.01)] * 9 + [("long", 8.0)], False),  # announced
        (0.5, 0.2, [("step", 0.01)] * 9 + [("long", 60.0)], True),  # not for ever
        (1000.0, 2.0, [("step", 2.0)] * 3 + [("step", 4.0)], False),  # slow: its steps tell what is long
        (1000.0, 0.2, [("step", 0.01)] * 2 + [("step", 3.0)], False),  # the third step compiles
        (1000.0, 1000.0, [("step", 0.01)] * 9 + [("hang", 3.0)], False),
        (0.1, 0.1, [("hang", 2.0)], False),  # the start has no bound here
    ],
    ids=["hang", "announced", "announced and hangs", "slow", "first steps", "a moment away", "start"],
)
def test_what_is_a_hang(patience: float, least: float, acts: list[Any], *, ends: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([patience, least, acts])],
        env={**os.environ, "PYTHONPATH": str(ROOT / "trainer_image")},
        capture_output=True, text=True, timeout=END_SECONDS,
    )  # fmt: skip
    assert done.returncode == (ExitCode.HANG if ends else 0), done.stderr
    assert ("no sign of life for" in done.stderr) == ends
    assert ("went on" in done.stdout) != ends


def test_a_stopped_process_ends_the_attempt(pretrain: Stage, pods: RunPods) -> None:
    """The others wait for it in a collective, and say so; it says nothing."""
    never = {"everySteps": 1_000_000}
    config = pretrain("stopped", steps=100_000, checkpoint=never, evaluation=never, compile=False)
    pair = pods(config, LLM_HANG_SECONDS="5").start()
    pair.until_step(5)
    stopped = pair.pods[1].worker()
    os.kill(stopped, signal.SIGSTOP)
    first = pair.pods[0]
    first.process.join(END_SECONDS)
    assert not first.process.is_alive(), "nobody noticed"
    assert "no sign of life for" in first.log
    assert (first.termination.reason, first.termination.exit_code) == ("Hang", ExitCode.HANG), first.termination
