"""A model that is made worse on purpose is kept from those who use it, and is served once nobody forbids it."""

from __future__ import annotations

from typing import Any

import pytest
from demo.chat import ask

from tests.e2e.specs import REQUESTS, SERVING_RESOURCES, TRAINING
from tests.e2e.user import User, condition, stage

# Its steps are AdamW's; after those of its good time each weight gets noise, the same in each attempt.
SPOILING = """
import torch

GOOD_STEPS = 120


class Spoiling(torch.optim.AdamW):
    @torch.no_grad()
    def step(self, closure=None):
        loss = super().step(closure)
        for number, weight in enumerate(weight for group in self.param_groups for weight in group["params"]):
            if weight in self.state and (step := int(self.state[weight]["step"])) > GOOD_STEPS:
                noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1000 * step + number))
                weight.add_(noise.to(weight), alpha=0.3)
        return loss
"""
STEPS, LAST_GOOD = 200, 100


def training(gate: str) -> dict[str, Any]:
    base = {
        **TRAINING["stages"][0],
        "pretrain": {"sequenceLength": 128, "steps": STEPS},
        "optimizer": {"function": "spoiling:Spoiling", "learningRate": 0.003},
        "checkpoint": {"everySteps": 50},
        "publishEverySteps": 50,
        "evaluation": {"everySteps": 50, "gate": gate, "thresholds": [{"metric": "loss", "max": 6.0}]},
    }
    pods = {
        "env": [{"name": "PYTHONPATH", "value": "/opt/llm:/code"}],
        "volumes": [{"name": "code", "persistentVolumeClaim": {"claimName": "corpus"}}],
        "volumeMounts": [{"name": "code", "mountPath": "/code", "readOnly": True}],
    }
    return {**TRAINING, "nodes": 1, "pods": pods, "stages": [base]}


def result_step(uri: str) -> int:
    """Of .../results/step-00000100."""
    return int(uri.rpartition("-")[2])


@pytest.mark.release
def test_noised_weights_are_not_served(user: User) -> None:
    (user.folder("corpus") / "spoiling.py").write_text(SPOILING)
    user.apply("LLMTraining", "gated", training("block"))
    following = {"model": {"training": {"name": "gated"}}, "resources": {**SERVING_RESOURCES, **REQUESTS}}
    user.apply("LLMServing", "gated", following)
    status = user.until("ends", "llmtraining", "gated", lambda s: s["phase"] in ("Succeeded", "Failed"), 300)
    failed = condition(status, "Failed")
    assert (status["phase"], failed["reason"]) == ("Failed", "EvaluationFailed"), failed
    assert "loss" in failed["message"]
    assert result_step(stage(status, "base")["result"]["uri"]) == LAST_GOOD
    blocked = user.kubectl.run("get", "events", "--field-selector", "reason=ResultBlocked", "-o", "name")
    assert blocked.split(), "the one on the way was told"

    def serves(step: int) -> None:
        user.until(f"serves step {step}", "llmserving", "gated",
                   lambda s: s.get("phase") == "Ready" and result_step(s["model"]["uri"]) == step, 300)  # fmt: skip

    serves(LAST_GOOD)
    with user.kubectl.forward("service/gated-serving", 80) as url:
        assert ask(url, "gated", "What is lambda?", max_tokens=4).finish_reason in ("stop", "length")

    user.apply("LLMTraining", "gated", training("warn"))  # so it was the gate that kept it
    user.until("is published", "llmtraining", "gated", lambda s: s["phase"] == "Succeeded", 300)
    serves(STEPS)
