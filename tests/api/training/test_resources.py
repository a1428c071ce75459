"""Resources in the pods of a training, and those that only the operator can refuse."""

from __future__ import annotations

import json

import pytest

from tests.api.training.conftest import NAME, Lab
from tests.specs import TRAINING, Spec, changed


def accepted(lab: Lab) -> dict[str, str]:
    conditions = lab.training().get("status", {}).get("conditions", ())
    return next((each for each in conditions if each["type"] == "Accepted"), {"status": "", "message": ""})


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"limits": {"habana.ai/gaudi": 8}}, "spec.resources.limits[habana.ai/gaudi]: is neither a GPU"),
        ({"limits": {"cpu": 1}, "requests": {"cpu": 2}}, "spec.resources.requests.cpu: 2 is above the limit 1"),
        ({"limits": {"memory": "10E"}}, "spec.resources.limits.memory: '10E' is above"),
    ],
    ids=["unknown device", "request above limit", "too large"],
)
def test_what_no_pod_could_have_is_refused_at_once(lab: Lab, resources: Spec, says: str) -> None:
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, changed(TRAINING, resources=resources))
    lab.until(lambda: accepted(lab)["status"] == "False")
    assert says in accepted(lab)["message"]
    assert lab.jobs() == []


def test_quantities_reach_the_pods(lab: Lab) -> None:
    limits = {"cpu": 0.5, "memory": 8e9, "ephemeral-storage": "1e9"}
    spec = changed(TRAINING, resources={"limits": {**limits, "rdma/hca": 1}})
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, spec)
    lab.start_pods("data")
    (pod,) = json.loads(lab.kubectl("get", "pods", "-o", "json"))["items"]
    found = pod["spec"]["containers"][0]["resources"]["limits"]
    assert found == {"cpu": "500m", "memory": "8G", "ephemeral-storage": "1e9"}, "as Kubernetes writes them"
