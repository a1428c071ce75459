"""What an earlier try or another operator has left behind."""

from __future__ import annotations

import pytest

from llm_operator.kube.plan import Plan
from llm_operator.training.gang import attempt_of, pod_index
from llm_operator.training.reconcile import reconcile
from llm_operator.training.waiting import NO_TROUBLE, Trouble
from tests.unit.training import scenes
from tests.unit.training.scenes import condition, scene
from tests.unit.world import START, World


@pytest.fixture
def half_made() -> World:
    """The ConfigMap of the first attempt was made, its Job was refused, and the status knows of neither."""
    world = scene()
    plan = reconcile(scenes.observed(world, now=START), START)
    world.execute(Plan(create=plan.create[:1]))
    return world


def test_what_a_refused_try_left_is_used(half_made: World) -> None:
    scenes.settle(half_made, START + 1)
    assert len(half_made.of("ConfigMap")) == 1
    assert len(half_made.of("Job")) == 1


def test_what_a_refused_try_left_goes_when_the_spec_has_changed(half_made: World) -> None:
    (before,) = half_made.of("ConfigMap")
    half_made.owner["spec"]["data"]["sources"][0]["uri"] = "pvc://corpus/other/*.txt"
    scenes.step(half_made, START + 1)
    scenes.settle(half_made, START + 20)
    (after,) = half_made.of("ConfigMap")
    assert "corpus/other" in after["data"]["stage.json"]
    assert "corpus/other" not in before["data"]["stage.json"]
    (job,) = half_made.of("Job")
    assert (attempt_of(after), attempt_of(job)) == (("data", 2), ("data", 2)), "not the settings of before"


def test_a_restarted_operator_says_on_why_pods_are_missing() -> None:
    """It has not read the events yet; the word of before holds until it has."""
    world = scene()
    scenes.settle(world)
    world.objects = {at: found for at, found in world.objects.items() if at[0] != "Pod"}

    def step(note: str | None) -> Plan:
        trouble = None if note is None else Trouble("Job", note=note) if note else NO_TROUBLE
        plan = reconcile(scenes.observed(world, trouble=trouble, now=START + 60), START + 60)
        world.execute(plan)
        return plan

    step("exceeded quota: pods=0")
    assert condition(world, "Running")["reason"] == "FailedCreate"
    assert step(None).empty, "a restart writes nothing"
    assert step("exceeded quota: pods=0").empty
    step("")
    assert condition(world, "Running")["reason"] == "Starting"


def test_labels_that_are_no_numbers_belong_to_nobody() -> None:
    odd = {"llm-operator.io/attempt": "one", "batch.kubernetes.io/job-completion-index": "²"}
    assert attempt_of({"metadata": {"labels": odd}})[1] == 0
    assert pod_index({"metadata": {"labels": {"batch.kubernetes.io/job-completion-index": "first"}}}) is None
