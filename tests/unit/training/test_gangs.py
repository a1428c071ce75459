"""What the pods of an attempt are to the decision: who runs, who goes, whose clock is wrong."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_operator.api.reasons import Reason
from llm_operator.kube.plan import Manifest
from llm_operator.training.failures import CAUSE_SECONDS, failure_of
from llm_operator.training.gang import Gang, ended_fact, failed_fact
from llm_trainer.protocol import ExitCode
from tests.unit.training import scenes
from tests.unit.training.scenes import KILLED, PEER_LOST, condition, end_pod, run_pods, settle, stage, status
from tests.unit.world import START, World

DELETED = "2026-01-01T00:02:00Z"
PREEMPTED = int(ExitCode.PREEMPTED)


def leave(pod: Manifest) -> None:
    pod["metadata"] |= {"deletionTimestamp": DELETED, "deletionGracePeriodSeconds": 120}


def finished(pod: Manifest, at: str) -> None:
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = at


def disrupted(pod: Manifest, at: str) -> None:
    pod["status"]["conditions"] = [
        {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained",
         "lastTransitionTime": at},
    ]  # fmt: skip


# --- pods that go --------------------------------------------------------------------------------------------------


def test_a_pod_that_terminates_does_not_run(at_base: World) -> None:
    leave(scenes.pods(at_base)[1])
    settle(at_base)
    assert condition(at_base, "Running")["status"] == "False"
    assert condition(at_base, "Running")["reason"] == "Terminating"
    assert "-1-x on node node-1 is being deleted" in condition(at_base, "Running")["message"]
    assert stage(at_base, "base")["workers"] == []


def test_pods_that_a_queue_took_say_nothing_once_the_job_goes_on(at_base: World) -> None:
    """Suspended and resumed between two passes: the old pods end, whichever way."""
    for pod, code in zip(scenes.pods(at_base), (1, KILLED), strict=True):
        leave(pod)
        end_pod(pod, code, "asked to leave")
    settle(at_base, START + 3600)
    assert len(stage(at_base, "base")["attempts"]) == 1
    run_pods(at_base)
    settle(at_base, START + 3600)
    assert status(at_base)["phase"] == "Running"


@pytest.mark.parametrize("code", [PREEMPTED, KILLED, 128 + 15])
def test_a_deleted_pod_is_infrastructure_once_the_job_has_failed(at_base: World, code: int) -> None:
    pod = scenes.pods(at_base)[1]
    leave(pod)
    end_pod(pod, code, "")
    settle(at_base)
    assert len(stage(at_base, "base")["attempts"]) == 1
    scenes.newest_job(at_base)["status"] = {"conditions": [{"type": "FailureTarget", "status": "True"}]}
    settle(at_base)
    first = stage(at_base, "base")["attempts"][0]
    assert (first["fault"], first["reason"]) == ("Infrastructure", "Preempted")


def test_out_of_memory_stays_the_cause_when_the_pod_is_deleted_then(at_base: World) -> None:
    pod = scenes.pods(at_base)[1]
    end_pod(pod, KILLED, reason="OOMKilled")
    leave(pod)
    scenes.newest_job(at_base)["status"] = {"conditions": [{"type": "Failed", "status": "True"}]}
    settle(at_base)
    assert stage(at_base, "base")["attempts"][0]["reason"] == "OutOfMemory"


@pytest.mark.parametrize("peer", ["gone", "silent", "lost too"])
def test_a_peer_lost_without_a_cause_is_infrastructure(at_base: World, peer: str) -> None:
    first, second = scenes.pods(at_base)
    end_pod(first, PEER_LOST, "connection closed by peer")
    if peer == "gone":
        del at_base.objects["Pod", second["metadata"]["name"]]
    elif peer == "lost too":
        end_pod(second, PEER_LOST, "connection closed by peer")
    scenes.step(at_base)
    assert len(stage(at_base, "base")["attempts"]) == 1, "its cause may still show"
    scenes.step(at_base, START + CAUSE_SECONDS)
    attempt = stage(at_base, "base")["attempts"][0]
    assert (attempt["fault"], attempt["reason"]) == ("Infrastructure", "PeerLost")
    said = {"gone": "the pod of index 1 is gone", "silent": "on node node-1 can't be reached", "lost too": "network"}
    assert said[peer] in attempt["message"]


# --- last words of pods that are gone ------------------------------------------------------------------------------


def test_a_last_word_that_came_with_the_end_of_the_pod(at_base: World) -> None:
    """Job and pods have gone within seconds of their good end, say by a time to live."""
    scenes.succeed(at_base)
    job = scenes.newest_job(at_base)["metadata"]["name"]
    at_base.departed = scenes.pods(at_base)
    for at in [at for at in at_base.objects if at[0] in ("Job", "Pod") and at[1].startswith(job)]:
        del at_base.objects[at]
    settle(at_base)
    assert stage(at_base, "base")["state"] == "Succeeded"
    assert stage(at_base, "base")["result"]["uri"].endswith("/stages/base/results/step-00000100")


def suspend(world: World) -> list[Manifest]:
    """Its pods, which terminate."""
    pods = scenes.pods(world)
    world.owner["spec"]["suspend"] = True
    settle(world)
    for pod in pods:  # the Job is gone, and a kubelet still has them
        leave(pod)
        world.objects["Pod", pod["metadata"]["name"]] = pod
    settle(world)
    return pods


def test_the_checkpoint_that_is_committed_on_suspend(at_base: World) -> None:
    last = scenes.told(at_base, 30, checkpoint=scenes.checkpoint(at_base, 30))
    pods = suspend(at_base)
    assert "checkpoint" not in stage(at_base, "base")
    end_pod(pods[0], PREEMPTED, "asked to leave", last)
    at_base.departed = [copy.deepcopy(pods[0])]
    del at_base.objects["Pod", pods[0]["metadata"]["name"]]
    settle(at_base)
    assert stage(at_base, "base")["checkpoint"]["step"] == 30
    assert status(at_base)["phase"] == "Suspended"


def test_who_commits_a_checkpoint_is_waited_for_but_not_for_ever(at_base: World) -> None:
    suspend(at_base)
    at_base.owner["spec"]["suspend"] = False
    settle(at_base, START + 100)
    assert len(stage(at_base, "base")["attempts"]) == 1
    assert condition(at_base, "Running")["reason"] == "Terminating"
    settle(at_base, START + 200)
    assert len(stage(at_base, "base")["attempts"]) == 2, "its node may be lost"


def test_another_number_of_nodes_waits_for_who_commits(at_base: World) -> None:
    pods = scenes.pods(at_base)
    scenes.edit(at_base, nodes=4)
    settle(at_base)
    for pod in pods:
        leave(pod)
        at_base.objects["Pod", pod["metadata"]["name"]] = pod
    at_base.owner["status"]["stages"][1]["attempts"] = stage(at_base, "base")["attempts"][:1]
    settle(at_base)
    assert condition(at_base, "Running")["reason"] == "Terminating"
    assert len(stage(at_base, "base")["attempts"]) == 1


# --- what is over --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("runs_on", "gone"), [(True, True), (False, False)])
def test_when_all_is_over_nothing_runs_on(at_base: World, *, runs_on: bool, gone: bool) -> None:
    """What ended by itself keeps its logs."""
    job = scenes.newest_job(at_base)
    for pod in scenes.pods(at_base):
        end_pod(pod, ExitCode.CONFIGURATION, "it can't work")
        pod["status"]["phase"] = "Running" if runs_on else "Failed"
    settle(at_base)
    assert status(at_base)["phase"] == "Failed"
    assert scenes.step(at_base, START + 1).requeue_after or not runs_on
    settle(at_base, START + 30)
    assert (("Job", job["metadata"]["name"]) not in at_base.objects) == gone


def test_what_nobody_knows_goes_also_when_all_is_over(at_base: World) -> None:
    end_pod(scenes.pods(at_base)[0], ExitCode.CONFIGURATION, "it can't work")
    settle(at_base)
    stray = copy.deepcopy(next(o for (kind, _), o in at_base.objects.items() if kind == "ConfigMap"))
    stray["metadata"] |= {"name": "stray", "uid": "stray", "labels": stray["metadata"]["labels"] | {
        "llm-operator.io/attempt": "7"}}  # fmt: skip
    at_base.objects["ConfigMap", "stray"] = stray
    settle(at_base)
    assert ("ConfigMap", "stray") in at_base.objects, "the status that knows it may be on its way"
    settle(at_base, START + 20)
    assert ("ConfigMap", "stray") not in at_base.objects


# --- clocks of other machines --------------------------------------------------------------------------------------

HOURS = st.sampled_from(["2025-12-31T23:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"])


def gang(world: World, **ages: float) -> Gang:
    job, pods = scenes.newest_job(world), scenes.pods(world)
    facts = {failed_fact(job): 0.0, **{ended_fact(pod): 0.0 for pod in pods}}
    return Gang(nodes=2, job=job, pods=pods, ages={**facts, **ages})


@given(HOURS, HOURS, st.sampled_from(["killed", "evicted", "secondary"]))
def test_no_clock_changes_whose_fault_it_was(one: str, other: str, what: str) -> None:
    world = scenes.scene()
    scenes.run_stage(world)
    first, second = run_pods(world)
    end_pod(first, PREEMPTED if what != "evicted" else 1, "asked to leave")
    finished(first, one)
    if what == "evicted":
        disrupted(second, other)
    else:
        end_pod(second, KILLED if what == "killed" else PEER_LOST, "killed")
        finished(second, other)
    failure = failure_of(gang(world), START)
    assert failure
    wanted = {"killed": Reason.KILLED, "evicted": Reason.EVICTED, "secondary": Reason.PREEMPTED}
    assert failure.reason == wanted[what]


@pytest.mark.parametrize("at", ["2025-12-31T23:00:00Z", "2026-01-01T01:00:00Z"])
def test_a_clock_that_is_wrong_keeps_nothing_waiting(at_base: World, at: str) -> None:
    """Nor hurries it: ten seconds by our own clock, for a cause to show."""
    first, _ = scenes.pods(at_base)
    end_pod(first, PEER_LOST, "connection closed by peer")
    finished(first, at)
    scenes.step(at_base)
    scenes.step(at_base, START + 9)
    assert len(stage(at_base, "base")["attempts"]) == 1
    settle(at_base, START + 10)
    assert len(stage(at_base, "base")["attempts"]) == 2


def test_of_two_own_faults_a_right_clock_tells_the_first(at_base: World) -> None:
    first, second = scenes.pods(at_base)
    end_pod(first, ExitCode.NO_SPACE, "no space left")
    end_pod(second, 1, "boom")
    finished(first, "2026-01-01T00:00:01Z")
    finished(second, "2026-01-01T00:00:03Z")
    failure = failure_of(gang(at_base), START + 5)
    assert failure
    assert failure.reason == Reason.NO_SPACE


def test_a_replica_whose_clock_was_ahead_delays_an_attempt_by_the_back_off_at_most(at_base: World) -> None:
    for _ in range(2):
        end_pod(scenes.pods(at_base)[0], 1, "boom")
        settle(at_base, START + 3600)
        if len(stage(at_base, "base")["attempts"]) == 2 and "endTime" not in stage(at_base, "base")["attempts"][-1]:
            run_pods(at_base)
            settle(at_base, START + 3600)
    assert len(stage(at_base, "base")["attempts"]) == 2
    at_base.sightings = type(at_base.sightings)()  # another replica takes over, whose clock is right
    plan = scenes.step(at_base, START)
    assert plan.requeue_after is not None
    assert plan.requeue_after <= 2
    settle(at_base, START + 2)
    assert len(stage(at_base, "base")["attempts"]) == 3


def test_figures_of_a_pod_on_a_node_whose_clock_is_behind_are_shown(at_base: World) -> None:
    scenes.step(at_base, progress=scenes.told(at_base, 10, heartbeat=START + 3600))
    scenes.step(at_base, progress=scenes.told(at_base, 20, heartbeat=START))
    assert stage(at_base, "base")["progress"]["step"] == 20
