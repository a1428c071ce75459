"""What an earlier try or another operator has left behind."""

from __future__ import annotations

import pytest

from llm_operator.api.training import Restarts
from llm_operator.kube.plan import Plan
from llm_operator.training.gang import attempt_of, pod_index
from llm_operator.training.reconcile import apply_refused, reconcile
from llm_operator.training.restarts import budget_of
from llm_operator.training.waiting import NO_TROUBLE, Trouble
from llm_trainer.protocol import ExitCode
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


def deleted_jobs(plan: Plan) -> list[bool]:
    """Whether each goes after its pods."""
    return [child.foreground for child in plan.delete if child.kind == "Job"]


def test_the_job_of_an_attempt_that_commits_goes_after_its_pods(at_base: World) -> None:
    """An operator that starts meanwhile would not know whose pods they are, and would start the next attempt."""
    scenes.edit(at_base, suspend=True)
    scenes.step(at_base)
    plan = reconcile(scenes.observed(at_base), START)
    assert deleted_jobs(plan) == [True]
    assert [child.foreground for child in plan.delete if child.kind != "Job"] == [False, False]


def test_the_job_of_an_attempt_that_failed_goes_at_once_and_makes_room(at_base: World) -> None:
    scenes.fail(at_base)
    scenes.step(at_base)
    assert deleted_jobs(reconcile(scenes.observed(at_base), START)) == [False]


# --- a quota ---


def test_a_quota_makes_what_has_ended_give_up_its_jobs() -> None:
    """They are kept for their logs, which are worth less than the next stage."""
    world = scene()
    scenes.run_stage(world)
    scenes.run_stage(world)
    assert {attempt_of(job)[0] for job in world.of("Job")} == {"data", "base", "chat"}, "without a quota all are kept"
    world.objects = {at: found for at, found in world.objects.items() if attempt_of(found)[0] != "chat"}
    last = scenes.status(world)["stages"][-1]
    last.update(attempts=[], state="Pending")
    last.pop("startTime")
    refused = apply_refused(scenes.observed(world), "Job x: exceeded quota: jobs, used: count/jobs.batch=2", START)
    world.execute(refused)
    plan = scenes.step(world, START + 1)
    assert {child.name for child in plan.delete if child.kind == "Job"} == {
        scenes.stage(world, name)["attempts"][-1]["job"] for name in ("data", "base")
    }
    assert [attempt_of(job) for job in world.of("Job")] == [("chat", 1)]


def test_another_refusal_takes_no_logs() -> None:
    world = scene()
    scenes.run_stage(world)
    world.execute(apply_refused(scenes.observed(world), "Job x: a webhook's no", START))
    assert not scenes.step(world, START + 1).delete


# --- what a pass learned ---


@pytest.mark.parametrize("length", [10, 5000])
def test_a_last_word_is_written_before_anything_is_created(at_base: World, length: int) -> None:
    """The pods of a suspended attempt told their checkpoint as they went; a quota must not make that unheard.

    A word that the status cuts is no news each time.
    """
    last = scenes.told(at_base, 50, checkpoint=scenes.checkpoint(at_base, 50))
    last = last.model_copy(update={"phase": "x" * length, "attention": "y" * length})
    pods = scenes.pods(at_base)
    scenes.edit(at_base, suspend=True)
    scenes.step(at_base)
    scenes.edit(at_base, suspend=False)
    for pod in pods:
        scenes.end_pod(pod, ExitCode.PREEMPTED, "suspended", last)
        at_base.objects.pop(("Pod", pod["metadata"]["name"]), None)
    at_base.departed = pods
    plan = scenes.step(at_base, START + 5)
    assert not plan.create
    assert scenes.stage(at_base, "base")["checkpoint"]["step"] == 50
    assert [attempt_of(child)[1] for child in scenes.step(at_base, START + 5).create if child["kind"] == "Job"] == [2]


# --- what fails beside a spec that can't work ---


def test_a_configuration_error_ends_a_training_whatever_its_spec_is_by_now(at_base: World) -> None:
    scenes.edit(at_base, stages__1__globalBatchSize=9)
    scenes.settle(at_base)
    scenes.fail(at_base, ExitCode.CONFIGURATION, "it can't work")
    scenes.settle(at_base)
    assert scenes.status(at_base)["phase"] == "Failed"
    assert "it can't work" in condition(at_base, "Failed")["message"]
    assert condition(at_base, "Accepted")["status"] == "False"
    scenes.edit(at_base, stages__1__globalBatchSize=8)
    scenes.settle(at_base)
    assert [a["number"] for a in scenes.stage(at_base, "base")["attempts"]] == [1, 2]


def test_a_fault_is_paid_whatever_the_spec_is_by_now(at_base: World) -> None:
    scenes.edit(at_base, stages__1__globalBatchSize=9)
    scenes.settle(at_base)
    scenes.fail(at_base)
    scenes.settle(at_base)
    assert condition(at_base, "Running")["reason"] == "InvalidSpec"
    assert scenes.stage(at_base, "base")["ownRestarts"] == 1
    assert scenes.stage(at_base, "base")["sinceProgress"]["own"] == 1
    assert budget_of({"spec": {"restarts": {"own": "many"}}}) == Restarts()
