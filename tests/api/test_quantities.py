"""The CRDs take as a quantity what a pod takes, and refuse what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from llm_operator.api.quantities import quantity_text
from tests.cluster.control_plane import ControlPlane
from tests.quantity_cases import POD_CASES, RIGHT_QUANTITIES, TOO_LARGE, WRONG_QUANTITIES, Case
from tests.specs import SERVING, TRAINING, changed

Manifest = dict[str, Any]
MODES: tuple[list[str], ...] = ([], ["--server-side", "--force-conflicts"])
PLACES = {
    "spec.resources.limits": ("LLMTraining", TRAINING, "resources__limits"),
    "spec.resources.requests": ("LLMServing", SERVING, "resources__requests"),
    "spec.stages[1].resources.limits": ("LLMTraining", TRAINING, "stages__1__resources__limits"),
}


def apply(api_server: ControlPlane, made: Manifest, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [api_server.binaries / "kubectl", "--kubeconfig", api_server.kubeconfig, "apply", "-f", "-", *arguments],
        input=json.dumps(made), capture_output=True, text=True, check=False,
    )  # fmt: skip


def with_quantities(place: str, values: list[object]) -> Manifest:
    """Each under a name of its own: q0, q1…"""
    kind, spec, path = PLACES[place]
    quantities = {f"q{index}": value for index, value in enumerate(values)}
    spec = changed(spec, **{path: quantities})
    return {"apiVersion": "llm-operator.io/v1alpha1", "kind": kind, "metadata": {"name": "quantities"}, "spec": spec}


def pod(containers: list[Manifest]) -> Manifest:
    named = [{"name": f"c{index}", "image": "x", "resources": each} for index, each in enumerate(containers)]
    spec = {"containers": named, "automountServiceAccountToken": False, "serviceAccountName": "quantities"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "quantities"}, "spec": spec}


@pytest.fixture(scope="module", autouse=True)
def account(api_server: ControlPlane) -> None:
    """Without one no pod is looked at."""
    api_server.kubectl("create", "serviceaccount", "quantities")


@pytest.mark.parametrize("mode", MODES, ids=["client side", "server side"])
@pytest.mark.parametrize("place", PLACES)
def test_what_a_pod_takes_is_taken(api_server: ControlPlane, place: str, mode: list[str]) -> None:
    made = with_quantities(place, [value for value, _ in RIGHT_QUANTITIES])
    answer = apply(api_server, made, *mode)
    assert answer.returncode == 0, answer.stderr
    there = json.loads(api_server.kubectl("get", made["kind"], "quantities", "-o", "json"))["spec"]
    if place.startswith("spec.stages"):
        there = there["stages"][1]
    (found,) = there["resources"].values()
    for index, (value, text) in enumerate(RIGHT_QUANTITIES):
        assert quantity_text(found[f"q{index}"]) == text, f"{value!r} came back as {found[f'q{index}']!r}"


@pytest.mark.parametrize("mode", MODES, ids=["client side", "server side"])
@pytest.mark.parametrize("place", PLACES)
def test_what_a_pod_refuses_is_refused(api_server: ControlPlane, place: str, mode: list[str]) -> None:
    values = [*(value for value, _ in WRONG_QUANTITIES), *TOO_LARGE[:2]]
    answer = apply(api_server, with_quantities(place, values), "--dry-run=server", *mode)
    assert answer.returncode != 0
    for index, value in enumerate(values):
        assert re.search(rf"{re.escape(place)}\.q{index}\b", answer.stderr), f"{value!r} was taken"


def test_the_memory_of_a_gpu(api_server: ControlPlane) -> None:
    made = with_quantities("spec.resources.limits", [1])
    for value, right in ((8e9, True), ("80Gi", True), ("80GB", False), (-1, False), (True, False), ({"a": 1}, False)):
        spec = changed(TRAINING, gpuMemory=value)
        answer = apply(api_server, {**made, "spec": spec}, "--dry-run=server")
        assert (answer.returncode == 0) == right, f"{value!r}: {answer.stdout} {answer.stderr}"
        assert right or "spec.gpuMemory" in answer.stderr


def test_null_is_dropped(api_server: ControlPlane) -> None:
    """And so it is by pydantic."""
    made = with_quantities("spec.resources.limits", [1, None])
    answer = apply(api_server, made, "--dry-run=server", "-o", "json", "--server-side", "--force-conflicts")
    assert answer.returncode == 0, answer.stderr
    there = json.loads(answer.stdout)["spec"]
    assert there["resources"]["limits"] == {"q0": 1}


def test_resources_of_a_stage_that_has_started_are_fixed(api_server: ControlPlane) -> None:
    """CEL can't read a value without a type; it compares it all the same."""
    made = with_quantities("spec.stages[1].resources.limits", [0.5])
    made["metadata"]["name"] = "started-with-half"
    assert apply(api_server, made).returncode == 0
    status = {"stages": [{"name": "chat", "kind": "sft", "startTime": "2026-01-01T00:00:00Z"}]}
    api_server.kubectl(
        "patch",
        "llmt",
        "started-with-half",
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps({"status": status}),
    )
    assert apply(api_server, {**made, "spec": {**made["spec"], "suspend": True}}).returncode == 0
    answer = apply(api_server, {**made, "spec": changed(made["spec"], stages__1__resources__limits__q0=0.75)})
    assert "a stage that has started can't change" in answer.stderr


# --- pods, by which our rules are measured -------------------------------------------------------------------------


def test_a_pod_takes_them(api_server: ControlPlane) -> None:
    containers = [{"limits": {"memory": value}} for value, _ in RIGHT_QUANTITIES]
    answer = apply(api_server, pod(containers), "--dry-run=server")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("value", [value for value, _ in WRONG_QUANTITIES], ids=repr)
def test_a_pod_refuses_them(api_server: ControlPlane, value: object) -> None:
    answer = apply(api_server, pod([{"limits": {"memory": value}}]), "--dry-run=server")
    assert answer.returncode != 0, answer.stdout


@pytest.mark.parametrize("case", POD_CASES, ids=lambda case: case.name)
def test_a_pod_judges_as_we_do(api_server: ControlPlane, case: Case) -> None:
    answer = apply(api_server, pod([case.resources]), "--dry-run=server")
    assert (answer.returncode != 0) == bool(case.says), answer.stdout + answer.stderr
