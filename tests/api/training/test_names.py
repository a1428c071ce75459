"""Names at their limits: every child that follows from them is one that the API server takes."""

from __future__ import annotations

import json
import time

import pytest

from llm_operator.kube import labels
from llm_trainer.protocol import Progress, Result, Termination
from tests.api.training.conftest import Lab
from tests.specs import TRAINING, changed

LONG = "7b.instruct-v0.3.continued-pretraining.japanese-legal.run-0000"
NAMES = (f"{LONG}1", f"{LONG}2", "0", "a.b", "a-b")
STAGE = "instruction-tuning-on-the-legal-corpus-a"


def jobs_of(lab: Lab, name: str) -> list[str]:
    which = ("-l", f"{labels.TRAINING}={name}", "-o", "jsonpath={.items[*].metadata.name}")
    return lab.kubectl("get", "jobs", *which).split()


def end_data(lab: Lab, name: str) -> str:
    """The data stage of one of several trainings, by its pod's last word; returns its Job."""
    lab.until(lambda: bool(jobs_of(lab, name)))
    (job,) = jobs_of(lab, name)
    lab.until(lambda: bool(lab.pods(job)))
    run = lab.kubectl("get", "llmtraining", name, "-o", "jsonpath={.status.runUri}")
    result = Result(uri=f"{run}/data", digest=f"sha256:{'0' * 64}", kind="data")
    last = Progress(stage="data", attempt=1, result=result, heartbeat=time.time())
    lab.end_pod(lab.pods(job)[0], 0, Termination(reason="Succeeded", progress=last))
    return job


def test_trainings_with_names_at_their_limits(lab: Lab) -> None:
    assert len(NAMES[0]) == 63
    for name in NAMES:
        spec = changed(TRAINING, stages__0__name=STAGE)
        lab.apply("llm-operator.io/v1alpha1", "LLMTraining", name, spec)
    jobs = {end_data(lab, name) for name in NAMES}
    assert len(jobs) == len(NAMES), "also of two that differ at the end only"
    for name in NAMES:
        lab.until(lambda name=name: len(jobs_of(lab, name)) == 2)  # type: ignore[misc]
    services = json.loads(lab.kubectl("get", "services", "-o", "json"))["items"]
    assert {service["metadata"]["labels"][labels.TRAINING] for service in services} == set(NAMES)


def test_a_name_that_no_label_holds_is_refused(lab: Lab) -> None:
    with pytest.raises(RuntimeError, match="at most 63 characters"):
        lab.apply("llm-operator.io/v1alpha1", "LLMTraining", "a" * 64, TRAINING)
