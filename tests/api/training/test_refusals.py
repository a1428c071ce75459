"""What the cluster will not have, such as more than a quota allows, stands in the status; then it goes on."""

from __future__ import annotations

import json

from tests.api.training.conftest import NAME, Found, Lab
from tests.specs import TRAINING


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
