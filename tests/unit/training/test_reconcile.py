from __future__ import annotations

import math
from pathlib import Path

import pytest

from llm_operator.kube.plan import Manifest
from llm_operator.training.reconcile import reconcile
from llm_trainer.config import StageConfig
from llm_trainer.protocol import ExitCode, Progress
from tests.specs import TRAINING, changed
from tests.unit.training import scenes
from tests.unit.training.scenes import KILLED, NOTICE, PEER_LOST, condition, end_pod, run_pods, settle, stage, status
from tests.unit.world import START, World, check_golden

GOLDEN = Path(__file__).parent / "golden"
EVICTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "EvictionByEvictionAPI",
    "message": "drained",
    "lastTransitionTime": "2026-01-01T00:10:00Z",
}


def fit_nowhere(pod: Manifest) -> None:
    said = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    pod["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}],
    }


@pytest.fixture
def world() -> World:
    return scenes.scene()


@pytest.fixture
def at_base(world: World) -> World:
    """Data is prepared, the pods of stage base run."""
    scenes.run_stage(world)
    run_pods(world)
    settle(world)
    return world


def test_first_pass(world: World) -> None:
    check_golden(GOLDEN / "first_pass.yaml", scenes.step(world))


def test_prepared_data_starts_the_first_stage(world: World) -> None:
    settle(world)
    run_pods(world)
    settle(world)
    scenes.succeed(world)
    check_golden(GOLDEN / "data_done.yaml", scenes.step(world))


def test_a_killed_process_makes_a_new_attempt_in_the_same_pass(at_base: World) -> None:
    first, second = scenes.pods(at_base)
    end_pod(second, KILLED, "process of rank 1 was killed by signal 9 (SIGKILL)")
    end_pod(first, PEER_LOST, "Connection closed by peer")
    check_golden(GOLDEN / "killed.yaml", scenes.step(at_base))


def test_an_ended_attempt_is_deleted_once_the_status_has_its_cause(at_base: World) -> None:
    end_pod(scenes.pods(at_base)[1], KILLED, "killed")
    old = scenes.newest_job(at_base)["metadata"]["name"]
    scenes.step(at_base)
    assert ("Job", old) in at_base.objects
    scenes.step(at_base)
    assert [name for kind, name in at_base.objects if name == old] == []


def test_a_victim_is_not_the_cause(at_base: World) -> None:
    end_pod(scenes.pods(at_base)[0], PEER_LOST, "Connection closed by peer")
    plan = scenes.step(at_base, START + 1)
    assert plan.requeue_after
    assert plan.requeue_after <= 1, "the other pod's end must be looked for soon"
    assert len(stage(at_base, "base")["attempts"]) == 1
    scenes.step(at_base, START + 11)
    assert len(stage(at_base, "base")["attempts"]) == 2, "it may never be seen"


@pytest.mark.parametrize(
    ("code", "reason"), [(ExitCode.DATA, "DataError"), (ExitCode.CONFIGURATION, "ConfigurationError")]
)
def test_a_configuration_error_fails_at_once(at_base: World, code: ExitCode, reason: str) -> None:
    end_pod(scenes.pods(at_base)[0], code, "corpus.jsonl line 3: no JSON")
    settle(at_base)
    assert status(at_base)["phase"] == "Failed"
    assert condition(at_base, "Failed")["reason"] == reason
    assert "corpus.jsonl line 3: no JSON" in condition(at_base, "Failed")["message"]
    assert len(stage(at_base, "base")["attempts"]) == 1


def test_configuration_error(at_base: World) -> None:
    end_pod(scenes.pods(at_base)[0], ExitCode.CONFIGURATION, "sequenceLength 512 is beyond the model's 256 positions")
    check_golden(GOLDEN / "configuration_error.yaml", scenes.step(at_base))


def test_the_budget_of_restarts_ends(world: World) -> None:
    world.owner["spec"] = changed(TRAINING, restarts={"own": 1})
    scenes.run_stage(world)
    for _ in range(2):
        run_pods(world)
        settle(world)
        end_pod(scenes.pods(world)[0], ExitCode.NO_SPACE, "no space left")
        settle(world)
    assert condition(world, "Failed")["reason"] == "NoSpace"
    assert "spec.restarts.own 1" in condition(world, "Failed")["message"]
    assert status(world)["restarts"] == 1


def test_exhausted(world: World) -> None:
    world.owner["spec"] = changed(TRAINING, restarts={"own": 0})
    scenes.run_stage(world)
    run_pods(world)
    settle(world)
    end_pod(scenes.pods(world)[0], KILLED, "killed")
    check_golden(GOLDEN / "exhausted.yaml", scenes.step(world))


@pytest.mark.parametrize(
    ("disruption", "reason"),
    [
        ("DeletionByTaintManager", "NodeLost"),
        ("EvictionByEvictionAPI", "Evicted"),
        ("PreemptionByScheduler", "Preempted"),
    ],
)
def test_infrastructure_pays_from_its_own_budget(at_base: World, disruption: str, reason: str) -> None:
    pod = scenes.pods(at_base)[1]
    pod["status"]["conditions"] = [
        {"type": "DisruptionTarget", "status": "True", "reason": disruption, "message": "node-1 is gone"}
    ]
    settle(at_base)
    base = stage(at_base, "base")
    assert (base["ownRestarts"], base["infrastructureRestarts"]) == (0, 1)
    assert base["attempts"][0]["reason"] == reason
    assert "node-1" in base["attempts"][0]["message"]


def test_node_lost(at_base: World) -> None:
    scenes.pods(at_base)[1]["status"]["conditions"] = [
        {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
        }
    ]
    check_golden(GOLDEN / "node_lost.yaml", scenes.step(at_base))


def test_who_left_when_asked_to_is_not_the_cause(at_base: World) -> None:
    first, second = scenes.pods(at_base)
    end_pod(first, ExitCode.PREEMPTED, "asked to leave")
    end_pod(second, KILLED, "killed")
    settle(at_base)
    assert stage(at_base, "base")["attempts"][0]["reason"] == "Killed"


def test_an_eviction_explains_what_the_others_died_of(at_base: World) -> None:
    first, second = scenes.pods(at_base)
    end_pod(first, ExitCode.HANG, "no step for 600 s")
    second["status"]["conditions"] = [EVICTED]
    settle(at_base)
    assert stage(at_base, "base")["attempts"][0]["reason"] == "Evicted"


def test_a_preempted_process_is_infrastructure(at_base: World) -> None:
    end_pod(scenes.pods(at_base)[1], ExitCode.PREEMPTED, "asked to leave")
    settle(at_base)
    assert stage(at_base, "base")["infrastructureRestarts"] == 1


def test_out_of_memory_says_so(at_base: World) -> None:
    end_pod(scenes.pods(at_base)[1], KILLED, reason="OOMKilled")
    settle(at_base)
    assert stage(at_base, "base")["attempts"][0]["reason"] == "OutOfMemory"


def test_own_faults_wait_longer_each_time(at_base: World) -> None:
    end_pod(scenes.pods(at_base)[0], 1, "boom")
    settle(at_base)
    run_pods(at_base)
    settle(at_base)
    end_pod(scenes.pods(at_base)[0], 1, "boom")
    plan = scenes.step(at_base)
    assert plan.requeue_after
    assert len(stage(at_base, "base")["attempts"]) == 2
    assert "boom" in condition(at_base, "Running")["message"]
    scenes.step(at_base)
    assert scenes.step(at_base, START + plan.requeue_after - 0.5).empty, "to wait is no news"
    settle(at_base, START + plan.requeue_after)
    assert len(stage(at_base, "base")["attempts"]) == 3


def test_the_first_own_fault_does_not_wait_for_an_eviction_before(at_base: World) -> None:
    scenes.pods(at_base)[0]["status"]["conditions"] = [EVICTED]
    settle(at_base)
    run_pods(at_base)
    settle(at_base)
    end_pod(scenes.pods(at_base)[0], KILLED, "killed")
    settle(at_base)
    assert len(stage(at_base, "base")["attempts"]) == 3


def test_a_missing_claim_is_waited_for(world: World) -> None:
    plan = reconcile(scenes.observed(world, claims=("models",)), START)
    check_golden(GOLDEN / "claim_missing.yaml", plan)
    assert not plan.apply


def test_pods_that_fit_nowhere(world: World) -> None:
    settle(world)
    fit_nowhere(run_pods(world)[0])
    check_golden(GOLDEN / "unschedulable.yaml", scenes.step(world))
    assert condition(world, "Running")["reason"] == "Unschedulable"


def test_a_gang_that_lacks_a_pod_pays_nothing(at_base: World) -> None:
    first, second = scenes.pods(at_base)
    fit_nowhere(first)
    end_pod(second, PEER_LOST, "the name of the first pod did not resolve within 300 s")
    settle(at_base)
    base = stage(at_base, "base")
    assert (base["ownRestarts"], base["infrastructureRestarts"]) == (0, 0)
    assert base["attempts"][0]["reason"] == "Unschedulable"
    assert "Insufficient nvidia.com/gpu" in base["attempts"][0]["message"]
    assert base["attempts"][1]["number"] == 2


def test_an_image_that_cannot_be_pulled(world: World) -> None:
    settle(world)
    pod = run_pods(world)[0]
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "nowhere/trainer:1"'}
    pod["status"] = {"phase": "Pending", "containerStatuses": [{"name": "trainer", "state": {"waiting": waiting}}]}
    check_golden(GOLDEN / "image_pull.yaml", scenes.step(world))
    assert condition(world, "Running")["reason"] == "ImagePullFailed"


def test_suspend_and_resume(at_base: World) -> None:
    at_base.owner["spec"]["suspend"] = True
    check_golden(GOLDEN / "suspend.yaml", scenes.step(at_base))
    settle(at_base)
    assert status(at_base)["phase"] == "Suspended"
    assert [name for kind, name in at_base.objects if kind == "Job" and "-base-" in name] == []
    at_base.owner["spec"]["suspend"] = False
    settle(at_base)
    base = stage(at_base, "base")
    assert base["attempts"][-1]["number"] == 2
    assert (base["ownRestarts"], base["infrastructureRestarts"]) == (0, 0)


def test_a_stage_that_succeeded_is_not_suspended_any_more(at_base: World) -> None:
    scenes.succeed(at_base)
    at_base.owner["spec"]["suspend"] = True
    settle(at_base)
    assert stage(at_base, "base")["state"] == "Succeeded"
    assert status(at_base)["phase"] == "Suspended"


def test_what_a_crash_left_over_goes_when_things_have_changed(at_base: World) -> None:
    end_pod(scenes.pods(at_base)[1], KILLED, "killed")
    at_base.execute(reconcile(scenes.observed(at_base), START), 3)  # attempt 2 is made, and nobody says so
    at_base.owner["spec"]["suspend"] = True
    for child in (made := [o for (_, name), o in at_base.objects.items() if "-base-2-" in name]):
        child["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert len(made) == 3
    assert scenes.step(at_base, START + 1).requeue_after == 10, "its status may be on its way"
    settle(at_base, START + 11)
    assert [name for _, name in at_base.objects if "-base-" in name] == []


def test_a_queue_may_take_the_pods_and_give_them_back(at_base: World) -> None:
    job = scenes.newest_job(at_base)
    job["spec"]["suspend"] = True
    end_pod(scenes.pods(at_base)[0], ExitCode.PREEMPTED, "asked to leave")
    settle(at_base)
    assert condition(at_base, "Running")["reason"] == "Pending"
    assert stage(at_base, "base")["workers"] == []
    job["spec"]["suspend"] = False
    run_pods(at_base)
    settle(at_base)
    assert status(at_base)["phase"] == "Running"
    assert len(stage(at_base, "base")["attempts"]) == 1


def test_all_stages(world: World) -> None:
    for _ in range(2):
        scenes.run_stage(world)
    run_pods(world)
    settle(world)
    scenes.succeed(world)
    check_golden(GOLDEN / "all_done.yaml", scenes.step(world))
    assert status(world)["phase"] == "Succeeded"
    assert stage(world, "chat")["result"]["uri"] == "pvc://models/run/chat"
    assert [s["state"] for s in status(world)["stages"]] == ["Succeeded"] * 3
    assert len(world.of("Job")) == 3, "the Jobs of good attempts stay, for their logs"
    assert scenes.step(world, START + 1e6).empty, "terminal is terminal"


def test_a_stage_gets_the_model_of_the_one_before(world: World) -> None:
    for _ in range(2):
        scenes.run_stage(world)
    config_map = next(c for c in world.of("ConfigMap") if "-chat-" in c["metadata"]["name"])
    config = StageConfig.model_validate_json(config_map["data"]["stage.json"])
    assert config.model
    assert config.model.uri == "pvc://models/run/base"


def test_an_invalid_spec_makes_nothing(world: World) -> None:
    world.owner["spec"] = changed(TRAINING, stages__0__pretrain__globalBatchSize=9)
    plan = scenes.step(world)
    assert not plan.apply
    assert status(world)["phase"] == "Invalid"
    assert "spec.stages[0].pretrain.globalBatchSize: 9" in condition(world, "Accepted")["message"]
    world.owner["spec"] = changed(TRAINING)
    assert scenes.step(world).apply, "correcting it is enough"


def test_a_deleted_job_is_made_again(at_base: World) -> None:
    name = scenes.newest_job(at_base)["metadata"]["name"]
    for at in [at for at in at_base.objects if at[1].startswith(name) and at[0] in ("Job", "Pod")]:
        del at_base.objects[at]
    scenes.step(at_base, START + 1)
    assert len(stage(at_base, "base")["attempts"]) == 1, "the status may have been faster than the Job"
    settle(at_base, START + 11)
    base = stage(at_base, "base")
    assert base["attempts"][0]["fault"] == "Infrastructure"
    assert base["attempts"][1]["number"] == 2


def test_progress_is_written_at_its_pace(at_base: World) -> None:
    scenes.step(at_base, START, scenes.told(at_base, 10, START))
    assert status(at_base)["progress"] == "10/100 10%"
    assert scenes.step(at_base, START + 5, scenes.told(at_base, 20, START + 5)).status is None
    scenes.step(at_base, START + 11, scenes.told(at_base, 30, START + 11))
    assert status(at_base)["progress"] == "30/100 30%"


def test_a_published_result_is_news(at_base: World) -> None:
    scenes.step(at_base, START, scenes.told(at_base, 10, START))
    plan = scenes.step(at_base, START + 1, scenes.told(at_base, 11, START + 1, result=scenes.result(at_base)))
    assert [event.reason for event in plan.events] == ["ResultPublished"]
    assert stage(at_base, "base")["result"]["uri"] == "pvc://models/run/base"


def test_a_published_result_is_not_the_last_one(at_base: World) -> None:
    """The Job succeeded, but its first pod and with it the last word are gone."""
    scenes.step(at_base, progress=scenes.told(at_base, 50, result=scenes.result(at_base)))
    scenes.succeed(at_base)
    del at_base.objects["Pod", scenes.pods(at_base)[0]["metadata"]["name"]]
    settle(at_base)
    assert stage(at_base, "base")["state"] == "Pending"
    assert stage(at_base, "base")["infrastructureRestarts"] == 1
    assert len(stage(at_base, "base")["attempts"]) == 2


def test_a_notice_becomes_one_event(at_base: World) -> None:
    progress = scenes.told(at_base, 10, START, notices=[NOTICE])
    assert [event.reason for event in scenes.step(at_base, START, progress).events] == ["CheckpointSetAside"]
    assert scenes.step(at_base, START + 20, progress.model_copy(update={"heartbeat": START + 20})).events == ()


def test_more_nodes_are_for_the_stages_to_come(at_base: World) -> None:
    at_base.owner["spec"]["nodes"] = 4
    settle(at_base)
    assert status(at_base)["phase"] == "Running"
    end_pod(scenes.pods(at_base)[0], KILLED, "killed")
    settle(at_base)
    assert stage(at_base, "base")["nodes"] == scenes.newest_job(at_base)["spec"]["completions"] == 2
    run_pods(at_base)
    settle(at_base)
    scenes.succeed(at_base)
    settle(at_base)
    assert stage(at_base, "chat")["nodes"] == scenes.newest_job(at_base)["spec"]["completions"] == 4


def test_the_workers_are_shown(at_base: World) -> None:
    workers = stage(at_base, "base")["workers"]
    assert [(worker["rank"], worker["node"]) for worker in workers] == [(0, "node-0"), (1, "node-1")]


def test_a_restarted_operator_writes_nothing(at_base: World) -> None:
    assert scenes.step(at_base, START + 3600).empty


def test_few_writes_until_running(world: World) -> None:
    """ConfigMap, Service, Job, two statuses and an event."""
    plans = [scenes.step(world)]
    run_pods(world)
    plans.append(scenes.step(world))
    assert status(world)["phase"] == "Running"
    writes = sum(len(plan.apply) + len(plan.delete) + bool(plan.status) + len(plan.events) for plan in plans)
    assert writes <= 6


def test_figures_that_are_no_numbers_are_told(at_base: World) -> None:
    told = scenes.told(at_base, 10, START, evaluation={"loss": math.nan}, eta_seconds=math.inf)
    scenes.step(at_base, START, Progress.model_validate_json(told.model_dump_json()))
    assert stage(at_base, "base")["progress"]["evaluation"] == {"loss": "nan"}


def test_news_of_another_attempt_is_no_news(at_base: World) -> None:
    progress = scenes.told(at_base, 10, START)
    scenes.step(at_base, START, progress.model_copy(update={"stage": "data"}))
    assert "progress" not in stage(at_base, "base")
