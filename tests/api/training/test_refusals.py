"""What the cluster will not have, such as more than a quota allows, stands in the status; then it goes on."""

from __future__ import annotations

import json

from llm_trainer.protocol import Termination
from tests.api.training.conftest import NAME, Found, Lab
from tests.specs import REMOVE, TRAINING, changed

EXISTING = {"model": {"uri": "pvc://models/base"}, "tokenizer": REMOVE, "data": REMOVE}


def limit(lab: Lab, hard: dict[str, str]) -> None:
    lab.apply("v1", "ResourceQuota", "team", {"hard": hard})

    def known() -> bool:
        found = json.loads(lab.kubectl("get", "resourcequota", "team", "-o", "json"))
        return bool(found.get("status", {}).get("hard") == hard)

    lab.until(known)


def running(lab: Lab) -> Found:
    conditions = lab.training().get("status", {}).get("conditions", ())
    return next(
        (condition for condition in conditions if condition["type"] == "Running"), {"reason": "", "message": ""}
    )


def test_a_quota_that_refuses_the_job(lab: Lab) -> None:
    limit(lab, {"count/jobs.batch": "0"})
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, TRAINING)
    lab.until(lambda: running(lab)["reason"] == "ApplyRefused")
    assert "exceeded quota: team" in running(lab)["message"]
    assert "stage data: Job " in running(lab)["message"]
    assert lab.phase() == "Pending"
    limit(lab, {"count/jobs.batch": "9"})
    lab.succeed("data", lab.start_pods("data"))


def test_a_quota_that_refuses_the_pods(lab: Lab) -> None:
    limit(lab, {"pods": "0"})
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, TRAINING)
    lab.until(lambda: running(lab)["reason"] == "FailedCreate")
    assert "exceeded quota: team" in running(lab)["message"]
    version = lab.training()["metadata"]["resourceVersion"]
    limit(lab, {"pods": "9"})
    assert lab.training()["metadata"]["resourceVersion"] == version, "every try has another pod name, which is no news"
    lab.succeed("data", lab.start_pods("data"))


def test_a_quota_of_two_jobs_is_enough(lab: Lab) -> None:
    """That of data preparation is kept; that of a failed attempt goes before the next one comes."""
    limit(lab, {"count/jobs.batch": "2"})
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, changed(TRAINING, stages__0=REMOVE, nodes=1, **EXISTING))
    lab.succeed("data", lab.start_pods("data"))
    for attempt in (1, 2):
        pod = lab.start_pods("chat", attempt, nodes=1)[0]
        lab.end_pod(pod, 137, Termination(reason="Killed", message=f"no {attempt}", exit_code=137, rank=0))
    lab.succeed("chat", lab.start_pods("chat", attempt=3, nodes=1), attempt=3)
    attempts = lab.stage("chat")["attempts"]
    assert [a["fault"] for a in attempts[:2]] == ["Own", "Own"]
    assert ["no 1" in attempts[0]["message"], "no 2" in attempts[1]["message"]] == [True, True]
    assert lab.stage("chat")["ownRestarts"] == 2
    # A quota counts what was deleted a moment later. Whoever is refused meanwhile gives up the finished Job, too.
    refused = "ApplyRefused" in lab.kubectl("get", "events", "-o", "jsonpath={.items[*].reason}")
    assert len(lab.jobs()) == (1 if refused else 2)


def test_what_a_pass_learned_outlives_a_refusal(lab: Lab) -> None:
    """The end of a stage and its result stand before the next stage's Job is asked for, and it is not run again."""
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, TRAINING)
    pods = lab.start_pods("data")
    limit(lab, {"count/jobs.batch": "0"})
    lab.succeed("data", pods)
    lab.until(lambda: running(lab)["reason"] == "ApplyRefused")
    assert "stage base: Job " in running(lab)["message"]
    limit(lab, {"count/jobs.batch": "1"})
    lab.start_pods("base")
    data = lab.stage("data")
    assert (data["state"], len(data["attempts"])) == ("Succeeded", 1)
    assert data["result"]["uri"] == f"{lab.training()['status']['runUri']}/data"


def test_a_quota_of_one_job_is_enough_for_all_stages(lab: Lab) -> None:
    """A Job that has ended is kept for its logs, until it is in the way."""
    limit(lab, {"count/jobs.batch": "1"})
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, TRAINING)
    for stage in ("data", "base", "chat"):
        lab.succeed(stage, lab.start_pods(stage))
    lab.until(lambda: lab.phase() == "Succeeded")
    assert lab.jobs() == [lab.stage("chat")["attempts"][0]["job"]]
