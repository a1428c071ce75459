"""Results that go elsewhere, by the real API server and the real Job controller."""

from __future__ import annotations

import json
import time
from typing import Any

from llm_trainer.config import PUBLISH_VARIABLE, PublishConfig
from llm_trainer.protocol import ExitCode, PublishedResult, Termination
from tests.api.training.conftest import NAME, Lab
from tests.specs import TRAINING, changed

HUB, BUCKET = "hf://team/base", "s3://models/chat"
CREDENTIALS = [{"secretName": "hub", "for": "hf"}, {"secretName": "store", "for": "s3://models"}]


def publications(lab: Lab) -> dict[str, dict[str, Any]]:
    return {each["to"]: each for each in lab.training()["status"].get("publications", [])}


def condition(lab: Lab) -> dict[str, Any]:
    found = lab.training()["status"].get("conditions", [])
    return next((each for each in found if each["type"] == "Published"), {"status": "", "reason": "", "message": ""})


def pod_of(lab: Lab, to: str, before: frozenset[str] = frozenset()) -> str:
    """The pod that publishes there, other than those."""

    def pods() -> list[str]:
        job = publications(lab).get(to, {}).get("job")
        return [pod for pod in lab.pods(job) if pod not in before] if job else []

    lab.until(lambda: bool(pods()))
    (pod,) = pods()
    return pod


def config_of(lab: Lab, pod: str) -> PublishConfig:
    found = json.loads(lab.kubectl("get", "pod", pod, "-o", "json"))
    (container,) = found["spec"]["containers"]
    text = next(each["value"] for each in container["env"] if each["name"] == PUBLISH_VARIABLE)
    return PublishConfig.model_validate_json(text)


def published(lab: Lab, to: str, pod: str) -> None:
    done = PublishedResult(revision="e7a9", bytes=1234, files=3)
    lab.end_pod(pod, 0, Termination(reason="Succeeded", published=done))
    lab.until(lambda: publications(lab)[to]["state"] == "Published")


def failed(lab: Lab, pod: str, code: ExitCode, message: str) -> None:
    lab.end_pod(pod, code, Termination(reason="DataError", message=message, exit_code=code))


def test_life_failure_retry_and_edits(lab: Lab) -> None:
    spec = changed(TRAINING, publish=[{"to": HUB, "stage": "base"}], credentials=CREDENTIALS)
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, spec)
    lab.succeed("data", lab.start_pods("data"))
    assert not [job for job in lab.jobs() if "publish" in job]
    assert condition(lab)["reason"] == "Pending"
    lab.succeed("base", lab.start_pods("base"))

    # while the next stage runs, the result goes out; what keeps nothing back is tried again by the Job controller
    chat = lab.start_pods("chat")
    first = pod_of(lab, HUB)
    assert (config_of(lab, first).stage, config_of(lab, first).to) == ("base", HUB)
    lab.set_container(first, "Running", {"running": {}})
    lab.until(lambda: "works on it" in publications(lab)[HUB]["message"])
    failed(lab, first, ExitCode.STORAGE, "the hub answers 503")
    second = pod_of(lab, HUB, frozenset({first}))
    lab.until(lambda: "1 try failed, the last: the hub answers 503" in publications(lab)[HUB]["message"])

    # what no try mends ends the Job at once, and undoes nothing
    failed(lab, second, ExitCode.DATA, "the token may not write to team (403)")
    lab.until(lambda: condition(lab)["reason"] == "PublishFailed")
    assert "the token may not write to team (403)" in condition(lab)["message"]
    assert lab.phase() == "Running"
    lab.succeed("chat", chat)
    lab.until(lambda: lab.phase() == "Succeeded")

    # after the end: the Secret was corrected, and another place was named
    job = publications(lab)[HUB]["job"]
    more = [{"to": HUB, "stage": "base"}, {"to": BUCKET}]
    lab.set_spec({"restartToken": "1", "publish": more})
    lab.until(lambda: publications(lab)[HUB].get("job") not in (None, job))
    for to in (HUB, BUCKET):
        published(lab, to, pod_of(lab, to))
    lab.until(lambda: condition(lab)["status"] == "True")
    told = publications(lab)
    assert (told[HUB]["attempt"], told[BUCKET]["attempt"], told[BUCKET]["bytes"]) == (2, 1, 1234)
    assert lab.phase() == "Succeeded"

    # a restart of the operator writes nothing, and an entry that is removed is forgotten
    version = lab.training()["metadata"]["resourceVersion"]
    lab.stop_operator()
    lab.start_operator()
    time.sleep(3)
    assert lab.training()["metadata"]["resourceVersion"] == version
    lab.set_spec({"publish": []})
    lab.until(lambda: not publications(lab) and condition(lab)["status"] == "")
    lab.until(lambda: not [job for job in lab.jobs() if "publish" in job])


def test_a_refused_job_keeps_no_stage_back(lab: Lab) -> None:
    """And what the gate has blocked never goes out."""
    lab.apply(
        "llm-operator.io/v1alpha1", "LLMTraining", NAME, changed(TRAINING, publish=[{"to": HUB, "stage": "base"}])
    )
    lab.succeed("data", lab.start_pods("data"))
    pods = lab.start_pods("base")
    # room for the Jobs that are there and the next stage's
    quota = {"hard": {"count/jobs.batch": "3"}}
    lab.apply("v1", "ResourceQuota", "jobs", quota)
    lab.until(lambda: "used" in json.loads(lab.kubectl("get", "quota", "jobs", "-o", "json")).get("status", {}))
    lab.succeed("base", pods)
    chat = lab.start_pods("chat")
    lab.until(lambda: condition(lab)["reason"] == "ApplyRefused")
    assert "exceeded quota" in condition(lab)["message"]
    assert lab.phase() == "Running"
    lab.kubectl("delete", "quota", "jobs")
    blocked = Termination(reason="EvaluationFailed", message="loss 3 is above 2", exit_code=ExitCode.EVALUATION)
    lab.end_pod(chat[0], ExitCode.EVALUATION, blocked)  # which ends its Job, and that the other pod
    lab.until(lambda: lab.phase() == "Failed")
    lab.set_spec({"publish": [{"to": HUB, "stage": "base"}, {"to": BUCKET, "stage": "chat"}]})
    published(lab, HUB, pod_of(lab, HUB))
    assert publications(lab)[BUCKET]["state"] == "Pending"
    assert len([job for job in lab.jobs() if "publish" in job]) == 1
