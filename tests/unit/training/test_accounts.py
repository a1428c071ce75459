"""What is counted of the statuses that are written: waiting, time by phase, restarts, lost work and GPU time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from prometheus_client import REGISTRY

from llm_operator.api.validation import load_training
from llm_operator.kube.plan import Key
from llm_operator.kube.specs import Specs
from llm_operator.settings import Settings
from llm_operator.training.accounts import Accounts
from tests.hostile import STATUSES
from tests.specs import TRAINING

KEY = Key("LLMTraining", "team", "chat")
SPEC = {**TRAINING, "nodes": 2, "resources": {"limits": {"cpu": "4", "memory": "64Gi", "nvidia.com/gpu": 4}}}
Seen = Callable[..., dict[str, float]]


def counted() -> dict[str, float]:
    return {
        "/".join([sample.name.removeprefix("llm_operator_llmtraining_"), *sample.labels.values()]): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith("llm_operator_llmtraining_") and "le" not in sample.labels
    }


@pytest.fixture
def see() -> Seen:
    """`see(now, status)`: what has grown by it. The status that was there is that of the call before."""
    accounts = Accounts(Specs(partial(load_training, devices=Settings().devices)))
    last: list[Any] = [None]

    def seen(now: float, status: dict[str, Any], spec: Any = SPEC) -> dict[str, float]:
        before = counted()
        metadata = {"name": "chat", "namespace": "team", "uid": "u", "generation": 1}
        accounts.see(KEY, {"metadata": metadata, "spec": spec, "status": last[0]}, status, now)
        last[0] = status
        return {name: value - before.get(name, 0) for name, value in counted().items() if value != before.get(name, 0)}

    return seen


def at(phase: str, step: int = 0, **stage: Any) -> dict[str, Any]:
    name = SPEC["stages"][0]["name"]
    return {
        "phase": phase, "stage": name,
        "stages": [{"name": "data"}, {"name": name, "nodes": 2, "progress": {"step": step}, **stage}],
    }  # fmt: skip


def test_waiting_and_the_time_of_gpus(see: Seen) -> None:
    assert see(100, at("Pending")) == {}, "how long it was so before is not known"
    assert see(160, at("Pending")) == {"phase_seconds_total/Pending": 60}
    found = see(190, at("Starting"))
    assert found["phase_seconds_total/Pending"] == 30
    assert (found["queue_wait_seconds_count"], found["queue_wait_seconds_sum"]) == (1, 90)
    assert see(200, at("Running")) == {"phase_seconds_total/Starting": 10, "gpu_seconds_total/allocated": 80}
    assert see(210, at("Running", 5)) == {
        "phase_seconds_total/Running": 10, "gpu_seconds_total/allocated": 80, "gpu_seconds_total/training": 80,
    }  # fmt: skip
    assert "gpu_seconds_total/training" not in see(220, at("Running", 5)), "it makes no steps"
    see(230, at("Succeeded", 5))
    assert see(999, at("Succeeded", 5)) == {}


def test_a_fault_costs_what_came_after_the_checkpoint(see: Seen) -> None:
    attempt = {"number": 1, "startTime": "2026-01-01T00:00:00Z"}
    checkpoint = {"time": "2026-01-01T00:10:00Z"}
    see(0, at("Running", 5, attempts=[attempt], checkpoint=checkpoint))
    ended = {**attempt, "endTime": "2026-01-01T00:12:00Z", "fault": "Infrastructure"}
    second = {"number": 2, "startTime": "2026-01-01T00:12:01Z"}
    failed = {"infrastructureRestarts": 1, "attempts": [ended, second], "checkpoint": checkpoint}
    found = see(1, at("Restarting", 5, **failed))
    assert found["lost_seconds_total/Infrastructure"] == 120
    assert found["gpu_seconds_total/lost"] == 120 * 8
    assert found["restarts_total/Infrastructure"] == 1
    assert "lost_seconds_total/Infrastructure" not in see(2, at("Restarting", 5, **failed)), "once"


def test_a_preempted_attempt_without_fault_costs_nothing(see: Seen) -> None:
    see(0, at("Running", attempts=[{"number": 1, "startTime": "2026-01-01T00:00:00Z"}]))
    ended = {"number": 1, "startTime": "2026-01-01T00:00:00Z", "endTime": "2026-01-01T00:12:00Z"}
    assert not {name for name in see(1, at("Suspended", attempts=[ended])) if "lost" in name}


@pytest.mark.parametrize("name", sorted(STATUSES))
def test_statuses_by_hand(name: str, see: Seen) -> None:
    hand = STATUSES[name]
    by_hand = hand if isinstance(hand, dict) else {}
    for now, status in enumerate((by_hand, at("Running"), by_hand)):
        see(2 * now, status)
        see(2 * now + 1, status, spec={"nodes": "two"})
    assert len([series for series in counted() if "phase_seconds" in series]) <= 9
