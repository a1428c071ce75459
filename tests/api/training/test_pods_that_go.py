"""Pods that are taken away: by a queue that soon gives them back, by hand, to suspend; some take their time to end."""

from __future__ import annotations

import json
import time

import pytest

from llm_trainer.protocol import CheckpointInfo, ExitCode, Progress, Termination
from tests.api.training.conftest import Lab

pytestmark = pytest.mark.usefixtures("training")


def at_base(lab: Lab) -> tuple[list[str], str]:
    """Its pods, held as by a kubelet, and their Job."""
    lab.succeed("data", lab.start_pods("data"))
    pods = lab.start_pods("base")
    lab.hold(*pods)
    return pods, str(lab.stage("base")["attempts"][0]["job"])


def committed(lab: Lab, step: int) -> Termination:
    """The last word of a rank 0 that was asked to leave."""
    uri = f"{lab.training()['status']['runUri']}/stages/base/checkpoints/step-{step:08d}"
    checkpoint = CheckpointInfo(step=step, uri=uri, time=time.time())
    last = Progress(stage="base", attempt=1, step=step, total_steps=100, checkpoint=checkpoint, heartbeat=time.time())
    return Termination(reason="Preempted", message="asked to leave", exit_code=ExitCode.PREEMPTED, progress=last)


def end(lab: Lab, pods: list[str], word: Termination) -> None:
    for rank, pod in enumerate(pods):
        lab.end_pod(pod, word.exit_code, word.model_copy(update={"rank": rank}))
        lab.let_go(pod)


def suspend_job(lab: Lab, job: str, *, suspend: bool) -> None:
    lab.kubectl("patch", "job", job, "-p", json.dumps({"spec": {"suspend": suspend}}))


def test_a_queue_gives_the_pods_back_while_they_end(lab: Lab) -> None:
    first, job = at_base(lab)
    suspend_job(lab, job, suspend=True)
    suspend_job(lab, job, suspend=False)
    lab.until(lambda: lab.condition("Running")["reason"] == "Terminating")
    end(lab, first, committed(lab, step=30))
    second = lab.start_pods("base")
    assert not set(first) & set(second)
    (attempt,) = lab.stage("base")["attempts"]
    assert attempt["job"] == job
    assert "endTime" not in attempt


def test_a_pod_deleted_by_hand_is_infrastructure(lab: Lab) -> None:
    """Nobody says why it went; its peer says that it lost it."""
    first, _ = at_base(lab)
    lab.kubectl("delete", "pod", first[1], "--wait=false")
    lab.until(lambda: lab.condition("Running")["reason"] == "Terminating")
    lost = Termination(reason="PeerLost", message="connection closed by peer", exit_code=ExitCode.PEER_LOST)
    lab.end_pod(first[0], ExitCode.PEER_LOST, lost)
    lab.end_pod(first[1], 137, Termination(reason="Killed"))
    lab.let_go(*first)
    lab.start_pods("base", attempt=2)
    base = lab.stage("base")
    assert (base["ownRestarts"], base["infrastructureRestarts"]) == (0, 1)


def test_the_checkpoint_committed_on_suspend_stands_in_the_status(lab: Lab) -> None:
    first, job = at_base(lab)
    lab.set_spec({"suspend": True})
    lab.until(lambda: lab.phase() == "Suspended" and not lab.pods(job))
    assert "commit a checkpoint" in lab.condition("Running")["message"]
    lab.stop_operator()
    lab.start_operator()  # which knows whose the pods are, as their Job stays until they have ended
    lab.set_spec({"suspend": False})
    lab.until(lambda: lab.condition("Running")["reason"] == "Terminating")
    assert len(lab.stage("base")["attempts"]) == 1, "another attempt would keep them from committing"
    lab.set_spec({"suspend": True})
    lab.until(lambda: not lab.pods(job))
    end(lab, first, committed(lab, step=30))
    lab.until(lambda: lab.stage("base").get("checkpoint", {}).get("step") == 30)
    lab.until(lambda: "commit a checkpoint" not in lab.condition("Running")["message"])
    assert lab.training()["status"]["progress"] == "30/100 30%"
    lab.until(lambda: job not in lab.jobs())
    lab.set_spec({"suspend": False})
    lab.start_pods("base", attempt=2)
    assert lab.stage("base")["infrastructureRestarts"] == 0
