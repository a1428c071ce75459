"""A policy engine changes what we make: the operator takes it as it is."""

from __future__ import annotations

import json

import pytest

from tests.api.training.conftest import NAME, Lab
from tests.bench import audit
from tests.specs import TRAINING

JOBS = {"apiGroups": ["batch"], "apiVersions": ["v1"], "resources": ["jobs"]}
POLICY = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingAdmissionPolicy",
    "metadata": {"name": "mutate-jobs"},
    "spec": {
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": ["batch"],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": ["jobs"],
                }
            ]
        },
        "failurePolicy": "Fail",
        "reinvocationPolicy": "IfNeeded",
        "mutations": [
            {
                "patchType": "ApplyConfiguration",
                "applyConfiguration": {
                    "expression": 'Object{metadata: Object.metadata{labels: {"cost-center": "42"}}, '
                    "spec: Object.spec{ttlSecondsAfterFinished: 2}}"
                },
            }
        ],
    },
}
BINDING = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingAdmissionPolicyBinding",
    "metadata": {"name": "mutate-jobs"},
    "spec": {
        "policyName": "mutate-jobs",
        "matchResources": {"namespaceSelector": {"matchLabels": {"case": "mutate"}}},
    },
}


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """In a namespace whose Jobs get a label and a time to live."""
    for manifest in (POLICY, BINDING):
        file = lab.plane.state / "policy.json"
        file.write_text(json.dumps(manifest))
        lab.kubectl("apply", "--server-side", "-f", file)
    lab.kubectl("label", "namespace", lab.namespace, "case=mutate")
    probe = ("create", "job", "probe", "--image=probe", "--dry-run=server", "-o", "json")
    lab.until(lambda: "cost-center" in lab.kubectl(*probe))
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, TRAINING)
    return lab


def test_what_a_policy_writes_stays(lab: Lab) -> None:
    pods = lab.start_pods("data")
    job = lab.jobs()[0]
    found = json.loads(lab.kubectl("get", "job", job, "-o", "json"))
    assert found["metadata"]["labels"]["cost-center"] == "42"
    lab.succeed("data", pods)
    lab.start_pods("base")
    lab.until(lambda: job not in lab.jobs())
    assert lab.stage("data")["state"] == "Succeeded"
    writes = audit.requests(lab.plane.audit_log, lab.operator)
    assert not [r for r in writes if r.resource == "jobs" and r.verb in ("update", "patch")]


def test_a_job_that_went_while_the_operator_was_away(lab: Lab) -> None:
    """Neither it nor a last word is there: the stage is made again, and finds what it has written."""
    pods = lab.start_pods("data")
    job = lab.jobs()[0]
    lab.stop_operator()
    lab.set_container(pods[0], "Succeeded", {"terminated": {"exitCode": 0, "reason": "Completed"}})
    lab.until(lambda: not lab.jobs())
    lab.start_operator()
    lab.succeed("data", lab.start_pods("data", attempt=2), attempt=2)
    assert job not in lab.jobs()
    assert lab.stage("data")["attempts"][0]["fault"] == "Infrastructure"
