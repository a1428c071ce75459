"""What becomes of a training among the real controllers of a cluster."""

from __future__ import annotations

import json
import time

import pytest

from llm_operator.api.conditions import timestamp
from llm_trainer.protocol import ExitCode, Termination
from tests.api.training.conftest import NAME, Lab
from tests.bench import audit
from tests.specs import TRAINING, changed

pytestmark = pytest.mark.usefixtures("training")


def at_base(lab: Lab) -> list[str]:
    lab.succeed("data", lab.start_pods("data"))
    return lab.start_pods("base")


def test_from_text_to_a_model(lab: Lab) -> None:
    pods = lab.start_pods("data")
    written = [r for r in audit.requests(lab.plane.audit_log, lab.operator) if r.write and r.resource != "leases"]
    assert len(written) <= 6, audit.by_verb(written)
    lab.succeed("data", pods)
    for stage in ("base", "chat"):
        lab.succeed(stage, lab.start_pods(stage))
    lab.until(lambda: lab.phase() == "Succeeded")
    assert len(lab.jobs()) == 3, "with their logs"


def test_a_killed_pod_makes_a_new_attempt(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    first = at_base(lab)
    began = time.time()
    lab.end_pod(
        first[1], 137, Termination(reason="Killed", message="killed by signal 9 (SIGKILL)", exit_code=137, rank=1)
    )
    second = lab.start_pods("base", attempt=2)
    assert not set(first) & set(second)
    base = lab.stage("base")
    assert (base["ownRestarts"], base["infrastructureRestarts"]) == (1, 0)
    assert base["attempts"][0]["reason"] == "Killed"
    assert first[1] in base["attempts"][0]["message"]
    lab.until(lambda: base["attempts"][0]["job"] not in lab.jobs())
    made = [
        r.at - began
        for r in audit.requests(lab.plane.audit_log, since=began)
        if (r.verb, r.resource, r.namespace) == ("create", "pods", lab.namespace)
    ]
    with capsys.disabled():
        print(f"\nfrom the end of a pod to the creation of the new ones: {made[0]:.2f} and {made[1]:.2f} s")


def test_an_evicted_pod_is_paid_for_by_the_infrastructure(lab: Lab) -> None:
    pod = at_base(lab)[0]
    now = timestamp(time.time())  # without a time the disruption controller takes it back at once, as a stale one
    evicted = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained",
                "lastTransitionTime": now}]  # fmt: skip
    lab.kubectl("patch", "pod", pod, "--subresource=status", "-p", json.dumps({"status": {"conditions": evicted}}))
    lab.start_pods("base", attempt=2)
    assert lab.stage("base")["infrastructureRestarts"] == 1


def test_a_configuration_error_is_the_end(lab: Lab) -> None:
    pods = lab.start_pods("data")
    word = Termination(reason="DataError", message="books.jsonl line 2: no JSON", exit_code=ExitCode.DATA)
    lab.end_pod(pods[0], ExitCode.DATA, word)
    lab.until(lambda: lab.phase() == "Failed")
    failed = next(c for c in lab.training()["status"]["conditions"] if c["type"] == "Failed")
    assert failed["reason"] == "DataError"
    assert "books.jsonl line 2" in failed["message"]
    assert len(lab.jobs()) == 1


def test_suspend_and_resume(lab: Lab) -> None:
    at_base(lab)
    lab.set_spec({"suspend": True})
    lab.until(lambda: lab.phase() == "Suspended" and len(lab.jobs()) == 1)
    lab.set_spec({"suspend": False})
    lab.start_pods("base", attempt=2)
    assert lab.stage("base")["ownRestarts"] == 0


def test_a_queue_may_take_the_pods_and_give_them_back(lab: Lab) -> None:
    first = at_base(lab)
    job = lab.stage("base")["attempts"][0]["job"]
    lab.kubectl("patch", "job", job, "-p", json.dumps({"spec": {"suspend": True}}))
    lab.until(lambda: lab.phase() == "Pending" and not lab.pods(job))
    lab.kubectl("patch", "job", job, "-p", json.dumps({"spec": {"suspend": False}}))
    second = lab.start_pods("base")
    assert not set(first) & set(second)
    assert len(lab.stage("base")["attempts"]) == 1


def test_a_deleted_job_is_made_again(lab: Lab) -> None:
    at_base(lab)
    job = lab.stage("base")["attempts"][0]["job"]
    lab.kubectl("delete", "job", job, "--cascade=foreground", "--wait=false")
    lab.start_pods("base", attempt=2)
    assert lab.stage("base")["attempts"][0]["message"] == f"Job {job} was deleted"


def test_a_run_folder_is_taken_up_when_its_training_has_stopped(lab: Lab) -> None:
    pods = lab.start_pods("data")
    folder = lab.training()["status"]["runUri"]
    assert folder == f"pvc://models/{NAME}-{lab.training()['metadata']['uid'][:8]}"
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", "again", changed(TRAINING, resumeFrom={"uri": folder}))

    def again() -> str:
        return lab.kubectl("get", "llmtraining", "again", "-o", "jsonpath={.status.conditions[?(@.type=='Running')]}")

    lab.until(lambda: "RunFolderInUse" in again())
    assert f"LLMTraining {NAME} has {folder} before this one" in again()
    assert len(lab.jobs()) == 1
    word = Termination(reason="DataError", message="no JSON", exit_code=ExitCode.DATA)
    lab.end_pod(pods[0], ExitCode.DATA, word)
    lab.until(lambda: any(job.startswith("again-data-1-") for job in lab.jobs()))
    assert lab.kubectl("get", "llmtraining", "again", "-o", "jsonpath={.status.runUri}") == folder


def test_a_deleted_training_leaves_nothing(lab: Lab) -> None:
    at_base(lab)
    lab.kubectl("delete", "llmtraining", NAME)
    lab.until(lambda: not lab.kubectl("get", "jobs,services,pods", "-o", "name"))
