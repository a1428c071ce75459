"""The chart's ValidatingAdmissionPolicies on the real API server: what they refuse, how, and what they let be."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.api.training.conftest import CLAIM, NAME, Lab
from tests.app_specs import APP
from tests.cluster.cluster import binaries
from tests.cluster.processes import wait
from tests.cluster.settings import REPOSITORY
from tests.specs import SERVING, TRAINING, changed

CHART = REPOSITORY / "charts" / "llm-operator"
PROTECTED = {"example.com/protected": "true"}
VALUES: dict[str, Any] = {
    "enabled": True,
    "images": ["registry.example.com/"],
    "priorityClasses": ["batch"],
    "tolerations": ["team-a"],
    "protectedClaims": PROTECTED,
}
KINDS = (("LLMTraining", TRAINING), ("LLMServing", SERVING), ("LLMApp", APP))
PODS = ("pods", "stages__1__pods", "prepareData__pods")
# what of a pod's settings → the words of the refusal, or none
CASES: list[tuple[dict[str, Any], str]] = [
    ({"env": [{"name": "NCCL_DEBUG", "value": "INFO"}]}, ""),
    (
        {"env": [{"name": "A"}, {"name": "LD_PRELOAD", "value": "/volumes/models/a.so"}]},
        "LD_PRELOAD is not allowed here",
    ),
    (
        {"env": [{"name": "PYTHONPATH", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]},
        "pods.env: PYTHONPATH",
    ),
    ({"priorityClassName": "batch"}, ""),
    ({"priorityClassName": "system-node-critical"}, "pods.priorityClassName: only batch is allowed"),
    ({"tolerations": [{"key": "team-a", "operator": "Exists"}]}, ""),
    ({"tolerations": [{"key": "team-b", "operator": "Exists"}]}, "pods.tolerations: each needs a key, one of team-a"),
    ({"tolerations": [{"operator": "Exists"}]}, "pods.tolerations: each needs a key"),
]
FROM: list[tuple[dict[str, Any], str]] = [
    ({"envFrom": [{"prefix": "AWS_", "secretRef": {"name": "keys"}}]}, ""),
    ({"envFrom": [{"prefix": "PATHS_", "secretRef": {"name": "keys"}}]}, ""),
    ({"envFrom": [{"secretRef": {"name": "keys"}}]}, "pods.envFrom: each needs a prefix"),
    ({"envFrom": [{"prefix": "", "secretRef": {"name": "keys"}}]}, "pods.envFrom: each needs a prefix"),
    ({"envFrom": [{"prefix": "LD_", "configMapRef": {"name": "keys"}}]}, "pods.envFrom: each needs a prefix"),
]


def manifests(namespace: str, values: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The policies alone; they hold in one namespace."""
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    file = folder / "values.json"
    file.write_text(json.dumps({"admissionPolicies": {"namespaceSelector": selector, **values}}))
    command: list[str | Path] = [binaries() / "helm", "template", "op", CHART, "--kube-version", "1.36.0"]
    done = subprocess.run(
        [*command, "--namespace", namespace, "--values", file], capture_output=True, text=True, check=True
    )
    return [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"].startswith("ValidatingAdmission")]


@pytest.fixture
def policies(lab: Lab, tmp_path: Path) -> Iterator[None]:
    file = tmp_path / "policies.yaml"
    file.write_text(yaml.safe_dump_all(manifests(lab.namespace, VALUES, tmp_path)))
    lab.plane.kubectl("apply", "--server-side", "--validate=strict", "-f", file)
    try:
        # One policy that holds tells nothing of the others.
        for kind, spec in KINDS:
            wait(f"the policy of {kind}", lambda: refusal(lab, kind, {**spec, "image": "else/where:1"}) != "")  # noqa: B023
        yield
    finally:
        lab.plane.kubectl("delete", "-f", file)


def refusal(lab: Lab, kind: str, spec: dict[str, Any]) -> str:
    """What the API server says, without making it; empty if it would."""
    made = {"apiVersion": "llm-operator.io/v1alpha1", "kind": kind, "metadata": {"name": "tried"}, "spec": spec}
    command: list[str | Path] = [
        lab.plane.binaries / "kubectl",
        "--kubeconfig",
        lab.plane.kubeconfig,
        "-n",
        lab.namespace,
    ]
    done = subprocess.run([*command, "apply", "--dry-run=server", "-f", "-"], input=json.dumps(made),
                          capture_output=True, text=True, check=False)  # fmt: skip
    return done.stderr if done.returncode else ""


@pytest.mark.usefixtures("policies")
def test_what_users_write(lab: Lab) -> None:
    """Wherever in a spec it stands; and the same without what is refused is let be."""
    tried = [("LLMTraining", changed(TRAINING, **{at: pods}), says) for at in PODS for pods, says in CASES]
    tried += [("LLMTraining", changed(TRAINING, pods=pods), says) for pods, says in FROM]
    for kind, spec in KINDS[1:]:
        tried += [(kind, changed(spec, pods=pods), says) for pods, says in [*CASES, *FROM]]
    for kind, spec in KINDS:
        tried += [
            (kind, spec, ""),
            (kind, {**spec, "image": "registry.example.com/trainer:1"}, ""),
            (kind, {**spec, "image": "registry.example.com.evil.org/trainer:1"}, "use one that begins with"),
            (kind, {**spec, "image": "trainer:1"}, "spec.image: trainer:1 is not allowed here"),
        ]
    for kind, spec, says in tried:
        told = refusal(lab, kind, spec)
        assert says in told, (kind, spec)
        assert bool(told) == bool(says), (kind, spec, told)


@pytest.mark.usefixtures("policies")
def test_the_policies_fit_the_resources(lab: Lab) -> None:
    """The API server checks the types of what they ask for."""
    for resource in ("llmtrainings", "llmservings", "llmapps", "claims"):
        name = f"{lab.namespace}.op.{resource}"

        def checked(name: str = name) -> bool:
            status = json.loads(lab.plane.kubectl("get", "validatingadmissionpolicy", name, "-o", "json"))["status"]
            return "typeChecking" in status

        wait("the check of types", checked)
        found = json.loads(lab.plane.kubectl("get", "validatingadmissionpolicy", name, "-o", "json"))
        assert not found["status"]["typeChecking"].get("expressionWarnings"), name


@pytest.mark.usefixtures("policies")
def test_a_protected_claim_is_mounted_by_none(lab: Lab) -> None:
    """The refusal stands in the training's status; without the label it goes on."""
    lab.kubectl("label", "pvc", "corpus", *(f"{key}={value}" for key, value in PROTECTED.items()))
    lab.apply("v1", "PersistentVolumeClaim", "free", CLAIM)

    def told() -> str:
        conditions = lab.training().get("status", {}).get("conditions", ())
        return next((one["message"] for one in conditions if one["type"] == "Running"), "")

    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, TRAINING)
    lab.until(lambda: "the claim corpus is not for trainings, servings and apps; use another" in told())
    assert not json.loads(lab.kubectl("get", "jobs", "-o", "json"))["items"]
    lab.kubectl("label", "pvc", "corpus", *(f"{key}-" for key in PROTECTED))
    lab.succeed("data", lab.start_pods("data"))


def test_off_by_default_and_nothing_where_nothing_is_ruled(tmp_path: Path) -> None:
    assert not manifests("one", {"enabled": False}, tmp_path)
    assert not manifests("one", {"enabled": True, "refusedEnv": []}, tmp_path)
    (claims, binding) = manifests("one", {"enabled": True, "refusedEnv": [], "protectedClaims": PROTECTED}, tmp_path)
    assert claims["metadata"]["name"] == binding["spec"]["policyName"] == "one.op.claims"
    assert len(manifests("one", {"enabled": True}, tmp_path)) == 6
