"""Every field that a user may set reaches real pods: of data preparation, of a stage, and of a serving."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from llm_operator.kube.templates import AS_WRITTEN, CONTAINER_SECURITY, POD_SECURITY
from tests.api.test_crds import apply, manifest, refused_by_field
from tests.api.training.conftest import NAME, PULL_SECRET, Found, Lab
from tests.cluster.control_plane import ControlPlane
from tests.pod_cases import (
    ALL_PODS,
    RIGHT_PODS,
    RIGHT_SERVING_PODS,
    STAGE_PODS,
    WRONG_PODS,
    WRONG_SERVING_PODS,
    Pods,
    with_pods,
)
from tests.specs import SERVING, TRAINING, Spec, Wrong, changed

RESTRICTED = {
    "pod": POD_SECURITY | ALL_PODS["securityContext"],
    "container": CONTAINER_SECURITY
    | ALL_PODS["containerSecurityContext"]
    | {"capabilities": {"add": ["IPC_LOCK"], "drop": ["ALL"]}},
}
RIGHT = [("LLMTraining", name, spec) for name, spec in RIGHT_PODS.items()]
RIGHT += [("LLMServing", name, spec) for name, spec in RIGHT_SERVING_PODS.items()]


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """With what pods name that the API server looks up."""
    for kind, extra in (("PriorityClass", {"value": 7}), ("RuntimeClass", {"handler": "nvidia"})):
        group = "scheduling.k8s.io" if kind == "PriorityClass" else "node.k8s.io"
        name = "urgent" if kind == "PriorityClass" else "nvidia"
        file = lab.plane.state / f"{kind}.json"
        file.write_text(json.dumps({"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": name}, **extra}))
        lab.kubectl("apply", "--server-side", "-f", file)
    lab.kubectl("create", "serviceaccount", "trainer")
    return lab


def made_pods(lab: Lab, selector: str, count: int) -> list[Found]:
    found: list[Found] = []

    def there() -> bool:
        found[:] = json.loads(lab.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
        return len(found) == count

    lab.until(there)
    return found


def lacks(wanted: Any, actual: Any, path: str) -> Iterator[str]:
    """What is not there as it is wanted; the API server may add its defaults, and we what is ours."""
    if isinstance(wanted, dict) and isinstance(actual, dict):
        for key, value in wanted.items():
            yield from lacks(value, actual.get(key), f"{path}.{key}")
    elif isinstance(wanted, list) and isinstance(actual, list):
        for index, item in enumerate(wanted):
            if all(any(lacks(item, other, "")) for other in actual):
                yield f"{path}[{index}]: {item} is not in {actual}"
    elif wanted != actual:
        yield f"{path}: {actual!r} and not {wanted!r}"


LISTS = ("tolerations", "topologySpreadConstraints", "volumes", "imagePullSecrets")


def as_written(pod: Found, pods: Pods) -> None:
    """Raises AssertionError with every field that is not as a user wants it."""
    spec = pod["spec"]
    (container,) = spec["containers"]
    found = {field: spec.get(field) for field in (*AS_WRITTEN, *LISTS)}
    found |= {field: container.get(field) for field in ("env", "envFrom", "volumeMounts")}
    found |= {field: pod["metadata"].get(field) for field in ("labels", "annotations")}
    found["shmSize"] = next(v["emptyDir"].get("sizeLimit") for v in spec["volumes"] if v["name"] == "shm")
    found |= {"securityContext": spec["securityContext"], "containerSecurityContext": container["securityContext"]}
    assert set(pods) <= set(found), f"not looked at: {set(pods) - set(found)}"
    wanted = pods | {"securityContext": RESTRICTED["pod"], "containerSecurityContext": RESTRICTED["container"]}
    problems = list(lacks(wanted, found, ""))
    assert not problems, "\n".join(problems)
    claims = [claim["name"] for claim in container["resources"].get("claims", [])]
    assert claims == [claim["name"] for claim in pods.get("resourceClaims", [])]
    for items, key in ((container["env"], "name"), (spec["volumes"], "name"), (container["volumeMounts"], "mountPath")):
        names = [item[key] for item in items]
        assert len(names) == len(set(names)), names
    assert {"name": PULL_SECRET} in spec["imagePullSecrets"], "the operator's setting"
    assert spec["automountServiceAccountToken"] is False
    selectors = [constraint["labelSelector"]["matchLabels"] for constraint in spec["topologySpreadConstraints"]]
    assert all(selector.items() <= pod["metadata"]["labels"].items() for selector in selectors)


def test_pods_of_data_preparation_and_of_stages(lab: Lab) -> None:
    """A stage's own fields, and the training's where it has none."""
    own: Pods = {"nodeSelector": {"pool": "cpu"}, "env": [{"name": "HF_TOKEN", "value": "none"}]}
    spec = changed(
        with_pods(ALL_PODS),
        stages__0__pods=own,
        prepareData={"pods": STAGE_PODS | {"shmSize": "1Gi"}, "resources": {"limits": {"cpu": "2"}}},
    )
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, spec)
    (data,) = made_pods(lab, "llm-operator.io/stage=data", 1)
    as_written(data, ALL_PODS | {"shmSize": "1Gi"})
    assert data["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "2"}
    lab.succeed("data", lab.start_pods("data"))
    for pod in made_pods(lab, "llm-operator.io/stage=base", 2):
        as_written(pod, ALL_PODS | own)
    lab.succeed("base", lab.start_pods("base"))
    for pod in made_pods(lab, "llm-operator.io/stage=chat", 2):
        as_written(pod, ALL_PODS)


def test_pods_of_a_serving(lab: Lab) -> None:
    spec = changed(SERVING, model={"uri": "pvc://models/chat"}, pods=ALL_PODS)
    lab.apply("llm-operator.io/v1alpha1", "LLMServing", "chat", spec)
    (pod,) = made_pods(lab, "llm-operator.io/serving=chat", 1)
    as_written(pod, ALL_PODS)


@pytest.mark.parametrize(("kind", "name", "spec"), RIGHT)
def test_right_pods_are_accepted(api_server: ControlPlane, kind: str, name: str, spec: Spec) -> None:
    answer = apply(api_server, manifest(kind, "right", spec), "--dry-run=server")
    assert answer.returncode == 0, f"{name}: {answer.stderr}"


@pytest.mark.parametrize(
    "case", [case for case in (*WRONG_PODS, *WRONG_SERVING_PODS) if case.at_server], ids=lambda case: case.name
)
def test_wrong_pods_are_refused(api_server: ControlPlane, case: Wrong) -> None:
    kind = "LLMTraining" if "stages" in case.spec else "LLMServing"
    refused_by_field(apply(api_server, manifest(kind, "wrong", case.spec), "--dry-run=server"), case)


def test_what_no_field_holds_is_not_kept(api_server: ControlPlane) -> None:
    """Of a client that does not validate strictly: nothing of any shape reaches the operator."""
    spec = changed(TRAINING, pods={"affinity": {"nodeAffinity": {"a": {"b": {}}}, "c": {}}})
    answer = apply(
        api_server, manifest("LLMTraining", "loose", spec), "--dry-run=server", "--validate=ignore", "-o", "json"
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["spec"]["pods"] == {"affinity": {"nodeAffinity": {}}}
