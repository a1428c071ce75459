"""A container that is not ours runs on in every pod, say of a mesh: what counts is the trainer's own end."""

from __future__ import annotations

import time

import pytest

from llm_trainer.protocol import ExitCode, Progress, Result, Termination
from tests.api.training.conftest import Lab, container_status

pytestmark = pytest.mark.usefixtures("training")


def end_trainer(lab: Lab, pod: str, word: Termination) -> None:
    """The pod's phase stays Running, and so does its Job."""
    said = word.model_dump_json(by_alias=True, exclude_none=True)
    ended = {"exitCode": word.exit_code, "reason": "Error" if word.exit_code else "Completed", "message": said}
    statuses = [container_status("trainer", {"terminated": ended}), container_status("mesh", {"running": {}})]
    lab.set_pod(pod, {"phase": "Running", "containerStatuses": statuses})


def test_a_stage_succeeds_by_the_last_word_of_rank_0(lab: Lab) -> None:
    pods = lab.start_pods("data")
    job = lab.stage("data")["attempts"][0]["job"]
    result = Result(uri=f"{lab.training()['status']['runUri']}/data", digest=f"sha256:{'0' * 64}", kind="data")
    last = Progress(stage="data", attempt=1, result=result, heartbeat=time.time())
    end_trainer(lab, pods[0], Termination(reason="Succeeded", progress=last))
    lab.until(lambda: lab.stage("data")["state"] == "Succeeded")
    lab.start_pods("base")
    lab.until(lambda: job not in lab.jobs())
    lab.until(lambda: not lab.pods(job))
    assert lab.stage("data")["state"] == "Succeeded"


def test_nothing_runs_on_after_a_failure(lab: Lab) -> None:
    pods = lab.start_pods("data")
    word = Termination(reason="ConfigurationError", message="it can't work", exit_code=ExitCode.CONFIGURATION)
    end_trainer(lab, pods[0], word)
    lab.until(lambda: lab.phase() == "Failed")
    assert "it can't work" in lab.condition("Failed")["message"]
    lab.until(lambda: not lab.kubectl("get", "jobs,pods", "-o", "name"))


def test_a_failed_attempt_of_which_a_sidecar_runs_on_is_followed_by_another(lab: Lab) -> None:
    lab.succeed("data", lab.start_pods("data"))
    first = lab.start_pods("base")
    end_trainer(lab, first[1], Termination(reason="Killed", message="killed by signal 9", exit_code=137, rank=1))
    second = lab.start_pods("base", attempt=2)
    assert not set(first) & set(second)
    assert lab.stage("base")["attempts"][0]["reason"] == "Killed"
