"""A result that misses a threshold reaches nobody: neither the status nor a serving that follows."""

from __future__ import annotations

import json
import time

import pytest

from llm_trainer.protocol import ExitCode, Progress, Result, Termination
from tests.api.training.conftest import NAME, Found, Lab
from tests.specs import TRAINING, changed

pytestmark = pytest.mark.usefixtures("training")
SAID = "the result is not published. step 100: capitals/acc is 0.2, less than min 0.5"


@pytest.fixture
def settings() -> dict[str, str]:
    return {"ROLLOUT_INTERVAL_SECONDS": "1"}


def served(lab: Lab) -> str:
    """The folder that the serving's Deployment serves."""
    text = lab.kubectl("get", "deployment", "chat-serving", "-o", "json", "--ignore-not-found")
    found: Found = json.loads(text) if text.strip() else {}
    return str(found["spec"]["template"]["spec"]["containers"][0]["command"][-1]) if found else ""


def end_blocked(lab: Lab, pods: list[str]) -> None:
    """As rank 0 does whose last result is blocked, after one on the way that was not."""
    uri = f"{lab.training()['status']['runUri']}/stages/chat/results/step-00000050"
    good = Result(uri=uri, digest=f"sha256:{'5' * 64}", kind="model", step=50)
    progress = Progress(stage="chat", attempt=1, step=100, result=good, heartbeat=time.time())
    word = Termination(reason="EvaluationFailed", message=SAID, exit_code=ExitCode.EVALUATION, progress=progress)
    lab.end_pod(pods[0], ExitCode.EVALUATION, word)


def test_a_serving_stays_on_the_result_before_a_blocked_one(lab: Lab) -> None:
    lab.apply(
        "llm-operator.io/v1alpha1", "LLMServing", "chat", {"model": {"training": {"name": NAME, "stage": "chat"}}}
    )
    lab.succeed("data", lab.start_pods("data"))
    lab.succeed("base", lab.start_pods("base"))
    end_blocked(lab, lab.start_pods("chat"))
    lab.until(lambda: lab.phase() == "Failed")
    failed = lab.condition("Failed")
    assert failed["reason"] == "EvaluationFailed"
    assert SAID in failed["message"]
    assert len(lab.stage("chat")["attempts"]) == 1, "another attempt would make the same"
    assert lab.stage("chat")["result"]["step"] == 50
    lab.until(lambda: served(lab).endswith("/stages/chat/results/step-00000050"))
    lower = {"gate": "block", "thresholds": [{"metric": "loss", "max": 9}]}
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, changed(TRAINING, stages__1__evaluation=lower))
    lab.succeed("chat", lab.start_pods("chat", attempt=2), attempt=2)
    lab.until(lambda: served(lab).endswith("/stages/chat/results/step-00000100"))
