"""NetworkPolicies of attempts in the real API server: created, kept, deleted with their attempts."""

from __future__ import annotations

import json

import pytest

from llm_trainer.protocol import Termination
from tests.api.training.conftest import NAME, Found, Lab
from tests.bench import audit

POLICIES = {
    "enabled": True,
    "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                     "ports": [{"port": 8080, "endPort": 8090}, {"port": "dns", "protocol": "UDP"}]}],
}  # fmt: skip
pytestmark = pytest.mark.usefixtures("training")


@pytest.fixture
def settings() -> dict[str, str]:
    return {"NETWORK_POLICIES": json.dumps(POLICIES)}


def policies(lab: Lab) -> dict[str, Found]:
    items = json.loads(lab.kubectl("get", "networkpolicies", "-o", "json"))["items"]
    return {item["metadata"]["name"]: item for item in items}


def test_each_attempt_has_one_of_its_own(lab: Lab) -> None:
    lab.succeed("data", lab.start_pods("data"))
    first = lab.start_pods("base")
    job = lab.stage("base")["attempts"][0]["job"]
    made = policies(lab)[job]
    assert made["metadata"]["ownerReferences"][0]["name"] == NAME
    assert made["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"] == {"batch.kubernetes.io/job-name": job}
    assert lab.pod(first[0])["metadata"]["labels"]["batch.kubernetes.io/job-name"] == job
    lab.end_pod(first[1], 137, Termination(reason="Killed", message="killed by signal 9", exit_code=137, rank=1))
    lab.start_pods("base", attempt=2)
    lab.until(lambda: job not in policies(lab))
    assert lab.stage("base")["attempts"][1]["job"] in policies(lab)
    writes = [r for r in audit.requests(lab.plane.audit_log, lab.operator) if r.resource == "networkpolicies"]
    made_by_us = sorted(request.verb for request in writes if request.write)
    assert made_by_us == ["create", "create", "create", "delete"], "one for each attempt, and never touched again"
    lab.kubectl("delete", "llmtraining", NAME)
    lab.until(lambda: not policies(lab))


def test_one_of_somebody_else_is_left_alone(lab: Lab) -> None:
    """The name is told, and the attempt waits: its pods would be open."""
    lab.succeed("data", lab.start_pods("data"))
    first = lab.start_pods("base")
    job = lab.stage("base")["attempts"][0]["job"]
    taken = f"{job.rsplit('-', 2)[0]}-2-{job.rsplit('-', 1)[1]}"
    lab.apply("networking.k8s.io/v1", "NetworkPolicy", taken, {"podSelector": {"matchLabels": {"app": "web"}}})
    lab.end_pod(first[1], 137, Termination(reason="Killed", message="killed by signal 9", exit_code=137, rank=1))
    lab.until(lambda: lab.condition("Running")["reason"] == "ApplyRefused")
    assert f"NetworkPolicy {taken}: the name is taken" in lab.condition("Running")["message"]
    assert taken not in lab.jobs()
    lab.kubectl("delete", "networkpolicy", taken)
    lab.kubectl("annotate", "llmtraining", NAME, "example.com/look=again")
    lab.start_pods("base", attempt=2)
    assert policies(lab)[taken]["spec"]["podSelector"]["matchLabels"] == {"batch.kubernetes.io/job-name": taken}
