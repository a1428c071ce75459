"""A training that failed goes on when its spec changes, and all that is said of it is about that spec."""

from __future__ import annotations

import pytest

from llm_operator.api.training_status import StageStatus
from llm_operator.api.validation import InvalidSpecError, load_training
from llm_operator.training.known import as_begun
from llm_operator.training.reconcile import apply_refused, reconcile
from llm_trainer.protocol import ExitCode
from tests.specs import TRAINING, changed
from tests.unit.training import scenes
from tests.unit.training.scenes import condition, edit, fail, run_pods, settle, stage, status
from tests.unit.world import START, World


@pytest.fixture
def failed(at_base: World) -> World:
    """At stage base, with data prepared."""
    fail(at_base, ExitCode.CONFIGURATION, "sequenceLength 512 is beyond the model's 256 positions")
    settle(at_base)
    assert status(at_base)["phase"] == "Failed"
    return at_base


def generations(world: World) -> set[int]:
    return {c["observedGeneration"] for c in status(world)["conditions"]} | {status(world)["observedGeneration"]}


def test_nothing_happens_while_nothing_changes(failed: World) -> None:
    assert scenes.step(failed, START + 1e6).empty


def test_a_corrected_stage_runs_again_and_finished_ones_stay(failed: World) -> None:
    data = stage(failed, "data")
    edit(failed, stages__0__pretrain__sequenceLength=64)
    plan = scenes.step(failed, START + 60)
    assert not plan.create, "it is written before anything is made"
    assert [(event.type, event.reason) for event in plan.events] == [("Normal", "TakenUp")]
    assert condition(failed, "Failed")["status"] == "False"
    assert condition(failed, "Failed")["reason"] == "TakenUp"
    assert "goes on with stage base, attempt 2, as the spec has changed" in condition(failed, "Failed")["message"]
    assert status(failed)["phase"] == "Restarting"
    settle(failed, START + 60)
    assert generations(failed) == {2}
    assert stage(failed, "data") == data
    assert [a["number"] for a in stage(failed, "base")["attempts"]] == [1, 2]
    assert "endTime" not in stage(failed, "base")
    run_pods(failed)
    settle(failed, START + 61)
    assert status(failed)["phase"] == "Running"
    config = next(c for c in failed.of("ConfigMap") if "-base-2-" in c["metadata"]["name"])["data"]["stage.json"]
    assert '"sequenceLength": 64' in config
    scenes.succeed(failed)
    settle(failed, START + 70)
    scenes.run_stage(failed, START + 80)
    assert status(failed)["phase"] == "Succeeded"
    assert condition(failed, "Failed")["status"] == "False"


def test_unchanged_it_runs_again_by_a_new_token(failed: World) -> None:
    edit(failed, restartToken="2026-01-01")
    settle(failed, START + 60)
    assert "as spec.restartToken is new" in condition(failed, "Failed")["message"]
    assert status(failed)["observedRestartToken"] == "2026-01-01"
    assert len(stage(failed, "base")["attempts"]) == 2
    fail(failed, ExitCode.CONFIGURATION, "still")
    settle(failed, START + 70)
    assert condition(failed, "Failed")["status"] == "True"
    assert scenes.step(failed, START + 1e6).empty, "the same token is no new one"
    edit(failed, restartToken="2026-01-02")
    settle(failed, START + 80)
    assert [a["number"] for a in stage(failed, "base")["attempts"]] == [1, 2, 3]


def test_the_failed_attempt_goes_when_it_is_taken_up(failed: World) -> None:
    assert [j for j in failed.of("Job") if "-base-1-" in j["metadata"]["name"]], "for its logs"
    edit(failed, restartToken="a")
    settle(failed, START + 60)
    assert [j["metadata"]["name"] for j in failed.of("Job") if "-base-" in j["metadata"]["name"]] == [
        stage(failed, "base")["attempts"][-1]["job"]
    ]


def test_budgets_begin_anew_and_the_count_goes_on(world: World) -> None:
    edit(world, restarts={"own": 1})
    scenes.run_stage(world)
    for _ in range(2):
        run_pods(world)
        settle(world)
        fail(world)
        settle(world)
    assert status(world)["phase"] == "Failed"
    edit(world, restartToken="a")
    for _ in range(2):
        settle(world, START + 60)
        assert status(world)["phase"] == "Restarting"
        fail(world)
    settle(world, START + 60)
    assert status(world)["phase"] == "Failed"
    assert status(world)["restarts"] == 2
    assert len(stage(world, "base")["attempts"]) == 4


def test_a_token_ends_the_wait_for_the_next_attempt(at_base: World) -> None:
    for _ in range(2):
        fail(at_base)
        settle(at_base)
    assert "starts at" in condition(at_base, "Running")["message"]
    edit(at_base, restartToken="now")
    settle(at_base)
    assert "waiting for 2 pods" in condition(at_base, "Running")["message"]
    assert "sinceProgress" not in stage(at_base, "base")


def test_a_token_does_not_touch_what_runs(at_base: World) -> None:
    before = stage(at_base, "base")
    edit(at_base, restartToken="now")
    settle(at_base)
    assert stage(at_base, "base") == before
    assert generations(at_base) == {2}


def test_an_invalid_correction_is_told_and_the_next_one_counts(failed: World) -> None:
    edit(failed, stages__0__globalBatchSize=9)
    settle(failed)
    assert condition(failed, "Accepted")["status"] == "False"
    assert condition(failed, "Failed")["status"] == "True"
    assert generations(failed) == {2}
    edit(failed, stages__0__globalBatchSize=8)
    settle(failed)
    assert condition(failed, "Accepted")["status"] == "True"
    assert len(stage(failed, "base")["attempts"]) == 2


def test_a_refusal_that_a_newer_operator_does_not_share_is_a_change(failed: World) -> None:
    edit(failed, stages__0__globalBatchSize=9)
    settle(failed)
    failed.owner["spec"]["stages"][0]["globalBatchSize"] = 8  # the same generation, and valid now
    settle(failed)
    assert condition(failed, "Failed")["status"] == "False"


def test_failed_data_preparation_is_corrected_by_its_sources(world: World) -> None:
    settle(world)
    fail(world, ExitCode.DATA, "books/*.txt: no file")
    settle(world)
    edit(world, data__sources__0__uri="pvc://corpus/texts/*.txt")
    settle(world)
    config = next(c for c in world.of("ConfigMap") if "-data-2-" in c["metadata"]["name"])["data"]["stage.json"]
    assert "pvc://corpus/texts/*.txt" in config


def test_a_stage_may_come_between(failed: World) -> None:
    """It runs first, and the one that failed then has all that a stage has that was taken up."""
    edit(
        failed,
        stages=[{"name": "first", "pretrain": {"sequenceLength": 64, "steps": 5}}, *failed.owner["spec"]["stages"]],
    )
    scenes.run_stage(failed, START + 60)
    base = stage(failed, "base")
    assert (base["state"], [a["number"] for a in base["attempts"]]) == ("Pending", [1, 2])
    assert "endTime" not in base
    scenes.run_stage(failed, START + 70)
    assert stage(failed, "base")["state"] == "Succeeded"


def test_without_a_checkpoint_a_corrected_stage_takes_the_new_number_of_nodes(failed: World) -> None:
    edit(failed, nodes=4)
    settle(failed)
    assert scenes.newest_job(failed)["spec"]["completions"] == stage(failed, "base")["nodes"] == 4


def test_with_a_checkpoint_too(at_base: World) -> None:
    checkpoint = scenes.checkpoint(at_base, 50)
    fail(at_base, ExitCode.CONFIGURATION, "no", scenes.told(at_base, 50, checkpoint=checkpoint))
    settle(at_base)
    edit(at_base, nodes=4)
    settle(at_base)
    assert scenes.newest_job(at_base)["spec"]["completions"] == stage(at_base, "base")["nodes"] == 4


def test_suspending_a_failed_training_starts_nothing(failed: World) -> None:
    edit(failed, suspend=True)
    settle(failed)
    assert status(failed)["phase"] == "Suspended"
    assert len(stage(failed, "base")["attempts"]) == 1
    edit(failed, suspend=False)
    settle(failed)
    assert len(stage(failed, "base")["attempts"]) == 2


# --- one that succeeded ---


@pytest.fixture
def done(world: World) -> World:
    for _ in range(3):
        scenes.run_stage(world)
    assert status(world)["phase"] == "Succeeded"
    return world


@pytest.mark.parametrize("change", [{"restartToken": "again"}, {"nodes": 4}, {"suspend": True}], ids=str)
def test_a_finished_training_has_nothing_to_run_and_says_so(done: World, change: dict[str, object]) -> None:
    jobs = done.of("Job")
    edit(done, **change)
    plan = scenes.step(done, START + 60)
    assert [event.reason for event in plan.events] == ["NothingToRun"]
    assert "generation 2 of the spec" in plan.events[0].message
    assert generations(done) == {2}
    assert status(done)["phase"] == "Succeeded"
    assert scenes.step(done, START + 61).empty
    assert done.of("Job") == jobs


def test_a_stage_that_is_added_runs(done: World) -> None:
    sft = {"name": "legal", "sft": {"dataset": {"uri": "pvc://corpus/legal.jsonl"}, "maxLength": 128}}
    edit(done, stages__2=sft)
    settle(done, START + 60)
    assert condition(done, "Succeeded")["status"] == "False"
    assert condition(done, "Succeeded")["reason"] == "TakenUp"
    assert [s["state"] for s in status(done)["stages"]] == ["Succeeded"] * 3 + ["Pending"]
    run_pods(done)
    settle(done, START + 61)
    scenes.succeed(done)
    settle(done, START + 62)
    assert condition(done, "Succeeded")["status"] == "True"
    assert "/stages/legal/results/" in condition(done, "Succeeded")["message"]


def test_every_edit_is_observed_whatever_runs(at_base: World) -> None:
    edit(at_base, stages__1__sft__epochs=5)
    settle(at_base)
    assert generations(at_base) == {2}
    edit(at_base, stages__1__globalBatchSize=9)
    settle(at_base)
    assert generations(at_base) == {3}


# --- a correction that is wrong too ---


def test_until_its_next_attempt_is_there_a_stage_may_be_corrected_again(failed: World) -> None:
    """CEL lets a stage that failed be changed; one that is to begin again has not begun."""
    edit(failed, stages__0__pretrain__sequenceLength=64, nodes=4)
    for _ in range(3):
        plan = reconcile(scenes.observed(failed, claims={}, now=START + 60), START + 60)
        failed.execute(plan)
    assert condition(failed, "Running")["reason"] == "PersistentVolumeClaimNotFound"
    assert (status(failed)["phase"], stage(failed, "base")["state"]) == ("Pending", "Failed")
    edit(failed, nodes=2)
    settle(failed, START + 70)
    assert [a["number"] for a in stage(failed, "base")["attempts"]] == [1, 2]
    assert (stage(failed, "base")["state"], stage(failed, "base")["nodes"]) == ("Pending", 2)
    assert "endTime" not in stage(failed, "base")


def test_a_correction_that_the_cluster_refuses_may_be_corrected_again(failed: World) -> None:
    edit(failed, stages__0__pretrain__sequenceLength=64)
    scenes.step(failed, START + 60)
    failed.execute(apply_refused(scenes.observed(failed, now=START + 61), "Job x: a webhook's no", START + 61))
    assert (condition(failed, "Running")["reason"], stage(failed, "base")["state"]) == ("ApplyRefused", "Failed")


# --- another number of nodes ---


def test_a_running_stage_goes_on_with_another_number_of_nodes(at_base: World) -> None:
    """No budget pays for it."""
    edit(at_base, nodes=4)
    settle(at_base, START + 60)
    base = stage(at_base, "base")
    first = base["attempts"][0]
    assert (first["reason"], first.get("fault")) == ("NodesChanged", None)
    assert "4 pods instead of 2" in first["message"]
    assert [attempt["number"] for attempt in base["attempts"]] == [1, 2]
    assert scenes.newest_job(at_base)["spec"]["completions"] == base["nodes"] == 4
    assert [base.get(f"{whose}Restarts") for whose in ("own", "infrastructure")] == [0, 0]


def test_a_number_that_cannot_work_ends_nothing(at_base: World) -> None:
    edit(at_base, stages__0__nodes=3)
    settle(at_base)
    assert condition(at_base, "Accepted")["status"] == "False"
    assert "spec.stages[0].globalBatchSize" in condition(at_base, "Accepted")["message"]
    assert [attempt.get("endTime") for attempt in stage(at_base, "base")["attempts"]] == [None]


EXPERTS = {"model__architecture": {"family": "mixtral", "config": {}}, "stages__0__pretrain__expertParallel": 2}


@pytest.mark.parametrize("state", ["Running", "Failed"])
def test_experts_that_are_spread_keep_their_nodes(state: str) -> None:
    begun = as_begun(load_training(changed(TRAINING, nodes=4, **EXPERTS)), [known(state, 2, checkpoint=True)])
    assert not isinstance(begun, InvalidSpecError)
    assert [stage.nodes for stage in begun.stages] == [2, None]
    asked = load_training(changed(TRAINING, nodes=4))
    assert as_begun(asked, [known(state, 2, checkpoint=True)]) is asked


def test_what_is_kept_must_go_with_the_spec() -> None:
    """The spec is right with two pods, and wrong with the four that the checkpoint is of."""
    asked = load_training(changed(TRAINING, stages__0__nodes=2, stages__0__globalBatchSize=6, **EXPERTS))
    problem = as_begun(asked, [known("Failed", 4, checkpoint=True)])
    assert isinstance(problem, InvalidSpecError)
    assert "spec.stages[0].globalBatchSize: 6" in str(problem)
    assert "stage base keeps nodes: 4" in str(problem)


def known(state: str, nodes: int, *, checkpoint: bool) -> StageStatus:
    """Of the stage `base`, which has started."""
    began = "2026-01-01T00:00:00Z"
    told = {"checkpoint": {"step": 5, "uri": "pvc://models/x", "time": began}} if checkpoint else {}
    return StageStatus.model_validate(
        {"name": "base", "kind": "pretrain", "state": state, "nodes": nodes, "startTime": began, **told}
    )


# --- the order of the stages ---


def test_a_stage_that_runs_has_the_turn_wherever_it_is_put(at_base: World) -> None:
    early = {**at_base.owner["spec"]["stages"][1], "name": "early", "model": {"uri": "pvc://models/base"}}
    edit(at_base, stages=[early, *at_base.owner["spec"]["stages"]])
    settle(at_base)
    assert stage(at_base, "early")["attempts"] == []
    scenes.succeed(at_base)
    settle(at_base)
    assert stage(at_base, "base")["state"] == "Succeeded"
    assert [a["number"] for a in stage(at_base, "early")["attempts"]] == [1]
