"""Whatever happens to the pods and wherever the operator dies, it ends at the same objects."""

from __future__ import annotations

import copy
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_operator.kube.sightings import Sightings
from llm_operator.training.reconcile import reconcile
from llm_trainer.protocol import ExitCode
from tests.unit.training import scenes
from tests.unit.world import START, World

HAPPENING = st.sampled_from(
    [
        "run", "succeed", "kill", "evict", "configuration", "delete job", "suspend", "resume", "correct", "once more",
        "spoil",
    ]
)  # fmt: skip
HAPPENINGS = st.lists(HAPPENING, max_size=14)


def happen(world: World, what: str) -> None:
    """Something that the cluster does, if it can."""
    try:
        job = scenes.newest_job(world)
    except (StopIteration, KeyError):
        job = None
    running = scenes.pods(world) if job else []
    match what:
        case "run" if job and not running:
            scenes.run_pods(world)
        case "succeed" if running:
            scenes.succeed(world)
        case "kill" if running:
            scenes.end_pod(running[-1], scenes.KILLED, "killed")
        case "evict" if running:
            running[0]["status"]["conditions"] = [
                {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drain"}
            ]
        case "configuration" if running:
            scenes.end_pod(running[0], ExitCode.CONFIGURATION, "it can't work")
        case "delete job" if job:
            del world.objects["Job", job["metadata"]["name"]]
        case "suspend" | "resume":
            scenes.edit(world, suspend=what == "suspend")
        case "correct" if not job:
            steps = world.owner["spec"]["stages"][0]["pretrain"]["steps"]
            scenes.edit(world, stages__0__pretrain__steps=steps + 1, stages__0__globalBatchSize=8)
        case "spoil" if not job:
            scenes.edit(world, stages__0__globalBatchSize=9)
        case "once more":
            scenes.edit(world, restartToken=str(world.owner["metadata"]["generation"]))


@settings(max_examples=3 * settings().max_examples)
@given(HAPPENINGS)
def test_applying_a_plan_makes_the_next_one_empty_in_the_end(happenings: list[str]) -> None:
    world, now = scenes.scene(), START
    for what in happenings:
        happen(world, what)
        now += 100
        scenes.settle(world, now)
        assert reconcile(scenes.observed(world, now=now), now).empty


@settings(max_examples=3 * settings().max_examples)
@given(HAPPENINGS, st.lists(st.integers(0, 5), max_size=40))
def test_a_crash_between_any_two_writes_converges(happenings: list[str], crashes: list[int]) -> None:
    whole, torn, now = scenes.scene(), scenes.scene(), START
    left = list(crashes)
    for what in ["", *happenings]:
        for world in (whole, torn):
            happen(world, what)
        now += 100
        while left:  # the operator dies after so many writes of each of these passes
            first = left.pop()
            plan = reconcile(scenes.observed(torn, now=now), now)
            if torn.execute(plan, first) == len(list(torn.writes(plan))):
                break
        for world in (whole, torn):
            scenes.settle(world, now)
            scenes.settle(world, now + 20)  # what nobody knows was seen for long enough
        assert torn.objects == whole.objects
        assert torn.owner == whole.owner


@settings(max_examples=3 * settings().max_examples)
@given(st.lists(st.tuples(HAPPENING, st.integers(0, 6)), max_size=14))
def test_nothing_is_left_over_whatever_happens_while_the_operator_is_down(events: list[tuple[str, int]]) -> None:
    world, now = scenes.scene(), START
    for what, writes in events:
        now += 100
        world.execute(reconcile(scenes.observed(world, now=now), now), writes)  # then it dies, and this happens:
        happen(world, what)
        world.sightings = Sightings()
    scenes.settle(world, now + 100)
    scenes.settle(world, now + 120)
    stages = world.owner["status"]["stages"]
    alive = {a["job"] for s in stages for a in s["attempts"] if "endTime" not in a or a["reason"] == "Succeeded"}
    last = {s["attempts"][-1]["job"] for s in stages if s["state"] == "Failed"}  # it has ended: for its logs
    assert {name for kind, name in world.objects if kind == "Job"} - last <= alive


@settings(max_examples=2 * settings().max_examples)
@given(HAPPENINGS)
def test_a_decision_changes_nothing_that_it_sees(happenings: list[str]) -> None:
    world, now = scenes.scene(), START
    for what in happenings:
        happen(world, what)
        now += 100
        seen = scenes.observed(world, now=now)
        before = copy.deepcopy(replace(seen, spec=None))  # which is frozen, or an error that equals itself alone
        reconcile(seen, now)
        assert replace(seen, spec=None) == before
        scenes.settle(world, now)
