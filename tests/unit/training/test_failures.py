"""Whose fault an end is, what it costs, and what its attempt says of the cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_trainer.protocol import ExitCode
from tests.specs import TRAINING, changed
from tests.unit.training import scenes
from tests.unit.training.scenes import (
    KILLED,
    PEER_LOST,
    condition,
    end_pod,
    fit_nowhere,
    run_pods,
    settle,
    stage,
    status,
)
from tests.unit.world import START, World, check_golden

GOLDEN = Path(__file__).parent / "golden"
EVICTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "EvictionByEvictionAPI",
    "message": "drained",
    "lastTransitionTime": "2026-01-01T00:10:00Z",
}


def test_a_killed_process_is_written_down_and_then_makes_a_new_attempt(at_base: World) -> None:
    first, second = scenes.pods(at_base)
    end_pod(second, KILLED, "process of rank 1 was killed by signal 9 (SIGKILL)")
    end_pod(first, PEER_LOST, "Connection closed by peer")
    check_golden(GOLDEN / "killed.yaml", scenes.step(at_base))
    check_golden(GOLDEN / "killed_next.yaml", scenes.step(at_base))


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
    settle(at_base, START + 11)
    assert len(stage(at_base, "base")["attempts"]) == 2, "it may never be seen"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (ExitCode.DATA, "DataError"),
        (ExitCode.CONFIGURATION, "ConfigurationError"),
        (ExitCode.DIVERGED, "Diverged"),
        (ExitCode.EVALUATION, "EvaluationFailed"),
    ],
)
def test_a_configuration_error_fails_at_once(at_base: World, code: ExitCode, reason: str) -> None:
    end_pod(scenes.pods(at_base)[0], code, "corpus.jsonl line 3: no JSON")
    settle(at_base)
    assert status(at_base)["phase"] == "Failed"
    assert condition(at_base, "Failed")["reason"] == reason
    assert "corpus.jsonl line 3: no JSON" in condition(at_base, "Failed")["message"]
    assert len(stage(at_base, "base")["attempts"]) == 1


def test_a_volume_that_does_not_answer_is_paid_as_infrastructure(at_base: World) -> None:
    end_pod(scenes.pods(at_base)[0], ExitCode.STORAGE, "checkpoints/step-00000030 can't be read at this moment")
    settle(at_base)
    first, second = stage(at_base, "base")["attempts"]
    assert first["reason"] == "StorageUnreadable"
    assert second["number"] == 2
    assert stage(at_base, "base")["sinceProgress"] == {"own": 0, "infrastructure": 1}


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
    scenes.step(at_base)
    plan = scenes.step(at_base)
    assert plan.requeue_after
    assert len(stage(at_base, "base")["attempts"]) == 2
    assert "boom" in condition(at_base, "Running")["message"]
    scenes.step(at_base, START + plan.requeue_after - 0.5)
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


def delete_job(world: World) -> None:
    name = scenes.newest_job(world)["metadata"]["name"]
    for at in [at for at in world.objects if at[1].startswith(name) and at[0] in ("Job", "Pod")]:
        del world.objects[at]


def test_a_deleted_job_is_made_again(at_base: World) -> None:
    delete_job(at_base)
    settle(at_base)
    base = stage(at_base, "base")
    assert base["attempts"][0]["fault"] == "Infrastructure"
    assert base["attempts"][1]["number"] == 2


def test_a_job_that_was_never_seen_may_be_on_its_way(world: World) -> None:
    """The status may have been faster than the Job, whatever the clock says of the replica that wrote it."""
    settle(world, START + 3600)
    delete_job(world)
    scenes.step(world, START)
    scenes.step(world, START + 9)
    assert len(stage(world, "data")["attempts"]) == 1
    settle(world, START + 11)
    assert len(stage(world, "data")["attempts"]) == 2
