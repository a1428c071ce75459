"""Random walks: deletions that take their time, restarts, deaths between writes, refusals and edits at any moment.

What must hold is in `cluster_walk.Walk`: at most one attempt under way; no number used again while pods of it live; no
stage run again that has its result; suspended or over means that nothing runs in the end; all comes to rest.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_trainer.protocol import ExitCode
from tests.unit.training.cluster_walk import WINDOWS, Walk

STEPS = (
    *["pass", "settle", "settle", "succeed", "resume", "mend"] * 3,
    *["fail", "leave", "suspend", "put before", "restart", "die", "refuse", "delete job", "drain", "time"] * 2,
    *["spoil", "again"],
)
CODES = (1, ExitCode.CONFIGURATION, 128 + 9, ExitCode.PREEMPTED)
STEP = st.tuples(st.sampled_from(STEPS), st.integers(0, 4))


def take(walk: Walk, what: str, which: int) -> None:
    match what:
        case "pass":
            walk.one_pass()
        case "settle":
            walk.settle()
        case "succeed":
            walk.end(0)
        case "fail":
            walk.end(CODES[which % len(CODES)])
        case "leave":
            walk.leave()
        case "suspend" | "resume":
            walk.edit(suspend=what == "suspend")
        case "spoil" | "mend":
            walk.edit(nodes=3 if what == "spoil" else 2)
        case "again":
            walk.edit(restartToken=str(walk.owner["metadata"]["generation"]))
        case "put before":
            walk.put_before()
        case "restart":
            walk.restart()
        case "die":
            walk.one_pass(writes=which)
            walk.restart()
        case "refuse":
            walk.one_pass(refused=True)
        case "delete job" | "drain":
            walk.lose("Job" if what == "delete job" else "Pod", which)
        case "time":
            walk.now += WINDOWS[which % len(WINDOWS)]


@settings(max_examples=2 * settings().max_examples)
@given(st.lists(STEP, min_size=30, max_size=60))
def test_any_walk(steps: list[tuple[str, int]]) -> None:
    walk = Walk()
    for what, which in steps:
        take(walk, what, which)
    walk.come_to_an_end()


# A random walk of sixty steps meets these seldom.
WALKS = {
    "a stage before the one that runs": "settle succeed settle put-before settle suspend settle",
    "a lost status and an edit": "settle succeed pass die:3 suspend settle time:1 settle resume settle leave settle",
    "the same, and a restart": "settle succeed pass die:3 suspend settle time:1 settle restart resume settle",
    "a Job that is deleted while it commits": "settle succeed settle suspend settle restart resume settle leave settle",
    "a failure beside an invalid edit": "settle succeed settle spoil settle fail:1 settle mend settle",
}


@pytest.mark.parametrize("steps", WALKS.values(), ids=WALKS.keys())
def test_a_walk(steps: str) -> None:
    walk = Walk()
    for one in steps.split():
        what, _, which = one.partition(":")
        take(walk, what.replace("-", " "), int(which or 0))
    walk.come_to_an_end()
