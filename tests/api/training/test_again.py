"""A training that failed is no dead end, and `kubectl wait` sees every edit, on a real API server."""

from __future__ import annotations

import json

import pytest

from llm_trainer.protocol import ExitCode, Termination
from tests.api.training.conftest import NAME, Found, Lab
from tests.specs import TRAINING, changed

pytestmark = pytest.mark.usefixtures("training")
WORD = Termination(reason="ConfigurationError", message="maxLength 512 is beyond", exit_code=ExitCode.CONFIGURATION)


def fail(lab: Lab, stage: str, attempt: int = 1) -> None:
    lab.end_pod(lab.start_pods(stage, attempt)[0], ExitCode.CONFIGURATION, WORD)
    lab.until(lambda: lab.phase() == "Failed")


def condition(lab: Lab, kind: str) -> Found:
    conditions = lab.training().get("status", {}).get("conditions", ())
    return next((one for one in conditions if one["type"] == kind), {"status": "", "reason": "", "message": ""})


def wait(lab: Lab, wanted: str) -> None:
    lab.kubectl("wait", f"--for=condition={wanted}", f"llmt/{NAME}", "--timeout=60s")


def events(lab: Lab) -> list[str]:
    found = json.loads(lab.kubectl("get", "events", "-o", "json"))["items"]
    return [event["reason"] for event in found if event["involvedObject"]["kind"] == "LLMTraining"]


def test_a_corrected_stage_runs_and_the_finished_ones_stay(lab: Lab) -> None:
    lab.succeed("data", lab.start_pods("data"))
    lab.succeed("base", lab.start_pods("base"))
    fail(lab, "chat")
    base, old_job = lab.stage("base"), lab.stage("chat")["attempts"][0]["job"]
    assert old_job in lab.jobs(), "for its logs"
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, changed(TRAINING, stages__1__sft__maxLength=64))
    wait(lab, "Failed=false")
    assert condition(lab, "Failed")["reason"] == "TakenUp"
    pods = lab.start_pods("chat", attempt=2)
    wait(lab, "Running")
    assert lab.stage("base") == base
    lab.until(lambda: old_job not in lab.jobs())
    job = lab.stage("chat")["attempts"][-1]["job"]
    assert '"maxLength": 64' in lab.kubectl("get", "configmap", job, "-o", "jsonpath={.data.stage\\.json}")
    lab.until(lambda: "TakenUp" in events(lab))
    lab.succeed("chat", pods, attempt=2)
    wait(lab, "Succeeded")


def test_unchanged_it_runs_again_by_a_token(lab: Lab) -> None:
    fail(lab, "data")
    lab.set_spec({"restartToken": "one"})
    lab.until(lambda: len(lab.stage("data")["attempts"]) == 2)
    fail(lab, "data", attempt=2)
    lab.set_spec({"restartToken": "two"})
    lab.succeed("data", lab.start_pods("data", attempt=3), attempt=3)
    lab.start_pods("base")
    assert [a["number"] for a in lab.stage("data")["attempts"]] == [1, 2, 3]
    assert lab.training()["status"]["observedRestartToken"] == "two"


def test_what_failed_preparation_reads_is_corrected(lab: Lab) -> None:
    fail(lab, "data")
    lab.set_spec({"data": {"sources": [{"name": "books", "uri": "pvc://corpus/texts/*.txt"}]}})
    lab.succeed("data", lab.start_pods("data", attempt=2), attempt=2)


def test_kubectl_wait_works_after_every_edit(lab: Lab) -> None:
    """It believes a condition only if its observedGeneration is the newest."""
    lab.start_pods("data")
    lab.set_spec({"restarts": {"own": 5}})
    wait(lab, "Accepted")
    wait(lab, "Running")
    spoilt = {"stages": changed(TRAINING, stages__1__globalBatchSize=9)["stages"]}
    lab.set_spec(spoilt)  # CEL can't see it
    wait(lab, "Accepted=false")
    lab.set_spec({"stages": TRAINING["stages"]})
    wait(lab, "Accepted")
    pod = lab.pods(lab.stage("data")["attempts"][-1]["job"])[0]
    lab.end_pod(pod, ExitCode.CONFIGURATION, WORD)
    wait(lab, "Failed")
    lab.set_spec(spoilt)
    wait(lab, "Accepted=false")
    wait(lab, "Failed")
    status = lab.training()["status"]
    assert {c["observedGeneration"] for c in status["conditions"]} == {status["observedGeneration"]}
    lab.set_spec({"stages": TRAINING["stages"]})
    wait(lab, "Failed=false")
    lab.succeed("data", lab.start_pods("data", attempt=2), attempt=2)


def test_a_finished_training_runs_only_what_is_added(lab: Lab) -> None:
    for stage in ("data", "base", "chat"):
        lab.succeed(stage, lab.start_pods(stage))
    wait(lab, "Succeeded")
    lab.set_spec({"restartToken": "once more"})
    lab.until(lambda: "NothingToRun" in events(lab))
    wait(lab, "Succeeded")
    assert len(lab.jobs()) == 3
    with pytest.raises(RuntimeError, match="a stage that has started"):
        lab.set_spec({"stages": changed(TRAINING, stages__1__sft__maxLength=64)["stages"]})
    legal = {"name": "legal", "sft": {"dataset": {"uri": "pvc://corpus/legal.jsonl"}, "maxLength": 128}}
    lab.set_spec({"stages": [*TRAINING["stages"], legal]})
    wait(lab, "Succeeded=false")
    lab.succeed("legal", lab.start_pods("legal"))
    wait(lab, "Succeeded")
