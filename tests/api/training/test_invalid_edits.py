"""A spec that can't work, of a training that runs: nothing of what runs changes, and no other attempt starts."""

from __future__ import annotations

import pytest

from llm_trainer.protocol import ExitCode, Termination
from tests.api.training.conftest import NAME, Lab
from tests.specs import TRAINING, changed

EDITED = changed(TRAINING, stages__1__globalBatchSize=8)


@pytest.fixture
def pods(lab: Lab) -> list[str]:
    """Of stage base, under way; then spec.nodes becomes 3, which 8 is no multiple of."""
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, EDITED)
    lab.succeed("data", lab.start_pods("data"))
    pods = lab.start_pods("base")
    lab.set_spec({"nodes": 3})
    lab.until(lambda: lab.condition("Accepted")["status"] == "False")
    return pods


def test_the_attempt_runs_on(lab: Lab, pods: list[str]) -> None:
    assert "spec.stages[1].globalBatchSize: 8" in lab.condition("Accepted")["message"]
    assert lab.condition("Running")["status"] == "True"
    assert lab.phase() == "Running"
    assert lab.pods(lab.stage("base")["attempts"][0]["job"]) == pods
    lab.succeed("base", pods)
    assert lab.stage("base")["result"]["uri"].startswith(f"{lab.training()['status']['runUri']}/stages/base/results/")
    lab.until(lambda: lab.condition("Running")["reason"] == "InvalidSpec")
    assert lab.phase() == "Invalid"
    assert lab.stage("chat")["attempts"] == []
    lab.set_spec({"nodes": 2})
    lab.start_pods("chat")


def test_it_can_be_suspended(lab: Lab, pods: list[str]) -> None:
    lab.set_spec({"suspend": True})
    lab.until(lambda: lab.condition("Running")["reason"] == "Suspended" and len(lab.jobs()) == 1)
    assert lab.phase() == "Suspended"
    assert lab.condition("Accepted")["status"] == "False"
    lab.set_spec({"suspend": False})
    lab.until(lambda: lab.phase() == "Invalid")
    assert len(lab.jobs()) == 1
    lab.set_spec({"nodes": 2})
    assert lab.start_pods("base", attempt=2) != pods


@pytest.mark.parametrize("code", [137, ExitCode.DATA])
def test_a_failure_is_noted(lab: Lab, pods: list[str], code: int) -> None:
    lab.end_pod(pods[1], code, Termination(reason="Error", message="a word of it", exit_code=code, rank=1))
    lab.until(lambda: lab.phase() == ("Failed" if code == ExitCode.DATA else "Invalid"))
    (attempt,) = lab.stage("base")["attempts"]
    assert "a word of it" in attempt["message"]
    assert attempt["fault"] == ("Configuration" if code == ExitCode.DATA else "Own")
    assert lab.stage("base")["ownRestarts"] == (0 if code == ExitCode.DATA else 1)
    assert lab.condition("Accepted")["status"] == "False"
    lab.set_spec({"nodes": 2})
    lab.start_pods("base", attempt=2)
