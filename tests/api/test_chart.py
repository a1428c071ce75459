"""The chart as Helm renders it, and as the API server takes it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml

from llm_operator.api.resources import DEFAULT_DEVICES, Devices
from llm_operator.settings import Settings
from tests.cluster.cluster import binaries
from tests.cluster.control_plane import ControlPlane
from tests.cluster.settings import REPOSITORY

Manifest = dict[str, Any]
CHART = REPOSITORY / "charts" / "llm-operator"


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(binaries() / "helm"), "template", "llm-operator", str(CHART), "--kube-version", "1.36.0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rendered(*arguments: str) -> list[Manifest]:
    done = helm("--namespace", "llm-operator", *arguments)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def one(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


def test_two_replicas_under_the_restricted_standard() -> None:
    spec = one(rendered(), "Deployment")["spec"]
    assert spec["replicas"] == 2
    pod, (container,) = spec["template"]["spec"], spec["template"]["spec"]["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("replicas=many", "replicas"),
        ("settings.log_level=LOUD", "log_level"),
        ("imgae.tag=1", "imgae"),
        ("gpuResources={gpu}", "gpuResources"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(value: str, says: str) -> None:
    done = helm("--set", value)
    assert done.returncode != 0
    assert says in done.stderr


def test_namespaces_take_roles_instead_of_a_cluster_role() -> None:
    manifests = rendered("--set", "namespaces={one,two}")
    assert not [m for m in manifests if m["kind"].startswith("ClusterRole")]
    assert {m["metadata"]["namespace"] for m in manifests if m["kind"] == "Role"} == {"llm-operator", "one", "two"}


def test_settings_reach_the_operator() -> None:
    container = one(rendered("--set", "settings.workers=4"), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "WORKERS", "value": "4"} in container["env"]


def environment(*arguments: str) -> dict[str, str]:
    container = one(rendered(*arguments), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


def test_the_devices_of_the_chart_are_those_of_the_operator() -> None:
    assert Settings.from_environment(environment()).devices == DEFAULT_DEVICES


def test_devices_are_added() -> None:
    given = environment("--set", "gpuResources={nvidia.com/gpu,gpu.example.com/*}", "--set-json", "otherResources=[]")
    assert Settings.from_environment(given).devices == Devices(("nvidia.com/gpu", "gpu.example.com/*"), ())


def test_the_api_server_takes_every_manifest(api_server: ControlPlane) -> None:
    api_server.kubectl("create", "namespace", "llm-operator")
    made = {"apiVersion": "v1", "kind": "List", "items": rendered()}
    done = subprocess.run(
        [binaries() / "kubectl", "--kubeconfig", api_server.kubeconfig, "apply", "--server-side", "--force-conflicts",
         "--dry-run=server", "--validate=strict", "-f", "-"],
        input=json.dumps(made), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
