"""Data preparation on several pods, by the real Job controller."""

from __future__ import annotations

import json

from llm_trainer.protocol import ExitCode, Termination
from tests.api.training.conftest import NAME, Lab
from tests.specs import TRAINING, changed


def test_two_pods_prepare_and_a_lost_one_makes_a_new_attempt(lab: Lab) -> None:
    spec = changed(TRAINING, prepareData={"nodes": 2})
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, spec)
    first = lab.start_pods("data", nodes=2)
    assert len(first) == 2
    (job,) = json.loads(lab.kubectl("get", "jobs", "-o", "json"))["items"]
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["backoffLimit"]) == ("Indexed", 2, 0)
    assert len(json.loads(lab.kubectl("get", "services", "-o", "json"))["items"]) == 1
    killed = Termination(reason="Killed", message="killed by signal 9 (SIGKILL)", exit_code=137, rank=1)
    lab.end_pod(first[1], ExitCode.INTERNAL, killed)
    second = lab.start_pods("data", attempt=2, nodes=2)
    assert len(second) == 2
    assert not set(first) & set(second)
    data = lab.stage("data")
    assert (data["nodes"], data["ownRestarts"]) == (2, 1)
    assert first[1] in data["attempts"][0]["message"]
    lab.succeed("data", second)
    lab.start_pods("base")
