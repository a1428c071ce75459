"""Real Helm on a real API server: what is installed, upgraded, uninstalled and installed again, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llm_operator.api.schema import RESOURCES, chart_copy, custom_resource_definition
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.training.manifests import children
from llm_operator.training.stages import planned_stages, stage_config
from tests.cluster.cluster import binaries
from tests.cluster.control_plane import ControlPlane, free_ports
from tests.cluster.processes import wait
from tests.cluster.settings import REPOSITORY
from tests.specs import TRAINING
from tests.unit.world import custom_resource

CHART = REPOSITORY / "charts" / "llm-operator"
DEFINITION = "llmtrainings.llm-operator.io"
OUTSIDER = "namespaces-only"


@dataclass(frozen=True)
class Helm:
    plane: ControlPlane

    def __call__(self, verb: str, release: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(self.plane.binaries / "helm"), "--kubeconfig", str(self.plane.kubeconfig), verb, release]
        return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False)

    def does(self, verb: str, release: str, *arguments: object) -> str:
        done = self(verb, release, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def install(self, release: str, namespace: str, *arguments: object, chart: Path = CHART) -> str:
        return self.does("install", release, chart, "--namespace", namespace, "--create-namespace", *arguments)

    def refusal(self, verb: str, release: str, namespace: str, *arguments: object, chart: Path = CHART) -> str:
        done = self(verb, release, chart, "--namespace", namespace, "--create-namespace", *arguments)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def get(self, *arguments: object) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.plane.kubectl("get", *arguments, "-o", "json"))
        return found

    def exists(self, *arguments: object) -> bool:
        return bool(self.plane.kubectl("get", *arguments, "--ignore-not-found", "-o", "name"))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Of its own, as these tests change and remove what belongs to the whole cluster; with IPv4 and IPv6."""
    state = tmp_path_factory.mktemp("helm")
    both = "10.215.0.0/16,fd00:215::/108"
    plane = ControlPlane(binaries(), state, port=free_ports(1), etcd_port=free_ports(2), service_range=both)
    plane.start(scheduler=False)
    try:
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(state, ignore_errors=True)


@pytest.fixture
def helm(plane: ControlPlane) -> Iterator[Helm]:
    """No release is there, nor a definition, before and after."""
    helm = Helm(plane)
    yield helm
    releases = json.loads(helm.does("list", "--all-namespaces", "--output", "json"))
    for release in releases:
        helm.does("uninstall", release["name"], "--namespace", release["namespace"])
    plane.kubectl("delete", "crd", "--ignore-not-found", *(f"{one.plural}.llm-operator.io" for one in RESOURCES))


def chart_of(folder: Path, version: str, *, without: str = "", column: str = "") -> Path:
    """The chart in another version: spec.pods lacks a field, or a printed column is new."""
    shutil.copytree(CHART, folder)
    file = folder / "Chart.yaml"
    file.write_text(file.read_text().replace("version: 0.1.0", f"version: {version}", 1))
    for resource in RESOURCES:
        definition = custom_resource_definition(resource)
        (served,) = definition["spec"]["versions"]
        spec = served["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        spec["pods"]["properties"].pop(without, None)
        if column:
            served["additionalPrinterColumns"].append({"name": column, "type": "string", "jsonPath": ".spec.image"})
        (folder / "templates" / "crds" / f"{resource.plural}.yaml").write_text(chart_copy(definition))
    return folder


def columns(helm: Helm) -> list[str]:
    (version,) = helm.get("crd", DEFINITION)["spec"]["versions"]
    return [column["name"] for column in version["additionalPrinterColumns"]]


def apply(helm: Helm, name: str, pods: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    helm.plane.kubectl("wait", "--for=condition=Established", "crd", DEFINITION, "--timeout=60s")
    made = {"apiVersion": "llm-operator.io/v1alpha1", "kind": "LLMTraining", "metadata": {"name": name},
            "spec": {**TRAINING, "pods": pods}}  # fmt: skip
    return kubectl(helm, made, *arguments)


def kubectl(helm: Helm, made: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(helm.plane.binaries / "kubectl"), "--kubeconfig", str(helm.plane.kubeconfig), "apply", "-f", "-"]
    return subprocess.run([*command, *arguments], input=json.dumps(made), capture_output=True, text=True, check=False)


def test_a_life_of_the_definitions(helm: Helm, tmp_path: Path) -> None:
    """Installed, upgraded, left behind by the release, found by another, upgraded by that one: no training is lost."""
    helm.install("old", "one", chart=chart_of(tmp_path / "older", "0.0.9", without="shmSize"))
    assert apply(helm, "kept", {}).returncode == 0
    uid = helm.get("llmt", "kept")["metadata"]["uid"]
    assert "shmSize" in apply(helm, "new", {"shmSize": "1Gi"}).stderr, "this field is what the older one lacks"

    helm.does("upgrade", "old", CHART, "--namespace", "one")
    wait("the new field", lambda: apply(helm, "new", {"shmSize": "1Gi"}, "--dry-run=server").returncode == 0)

    helm.does("uninstall", "old", "--namespace", "one")
    assert not helm.exists("clusterrole", "llm-operator")
    assert helm.get("llmt", "kept")["metadata"]["uid"] == uid

    helm.install("old", "one")
    assert DEFINITION in helm.does("get", "manifest", "old", "--namespace", "one"), "its own, also after it was gone"
    helm.does("uninstall", "old", "--namespace", "one")

    assert "belong to the release old in one" in helm.install("new", "two")
    assert DEFINITION not in helm.does("get", "manifest", "new", "--namespace", "two"), "they are the same, so left"

    newer = chart_of(tmp_path / "newer", "0.2.0-rc.1", column="Newer")
    refused = helm.refusal("upgrade", "new", "two", chart=newer)
    assert "CustomResourceDefinition" in refused
    assert "invalid ownership metadata" in refused
    assert "Newer" not in columns(helm)
    helm.does("upgrade", "new", newer, "--namespace", "two", "--take-ownership")
    assert "Newer" in columns(helm)
    assert helm.get("crd", DEFINITION)["metadata"]["annotations"]["meta.helm.sh/release-name"] == "new"

    refused = helm.refusal("install", "third", "three", "--set", "namespaces={team}", "--take-ownership")
    assert "is of chart 0.2.0-rc.1, which is newer than this one, 0.1.0" in refused
    assert helm.get("llmt", "kept")["metadata"]["uid"] == uid


def test_a_release_that_no_longer_has_the_definitions_leaves_them(helm: Helm, tmp_path: Path) -> None:
    """Helm deletes what an upgrade's manifests lack: here all trainings would go too."""
    for team in ("left", "right"):
        helm.plane.kubectl("create", "namespace", team)
    helm.install("left", "left", "--set", "namespaces={left}")
    assert apply(helm, "kept", {}).returncode == 0
    uid = helm.get("llmt", "kept")["metadata"]["uid"]
    newer = chart_of(tmp_path / "newer", "0.2.0", column="Newer")
    helm.install("right", "right", "--set", "namespaces={right}", "--take-ownership", chart=newer)
    refused = helm.refusal("upgrade", "left", "left", "--set", "namespaces={left}")
    assert "newer than this one" in refused, "it had the definitions, so Helm itself would let it set them back"

    helm.does("upgrade", "left", newer, "--namespace", "left", "--reuse-values")
    assert DEFINITION not in helm.does("get", "manifest", "left", "--namespace", "left")
    helm.does("upgrade", "right", newer, "--namespace", "right", "--reuse-values", "--set", "crds.install=false")
    assert DEFINITION not in helm.does("get", "manifest", "right", "--namespace", "right")
    helm.does("uninstall", "left", "--namespace", "left")
    assert helm.get("llmt", "kept")["metadata"]["uid"] == uid
    assert "Newer" in columns(helm)


def test_services_have_both_families(helm: Helm) -> None:
    helm.install("op", "one")
    owner = custom_resource("LLMTraining", "bilingual", TRAINING)
    spec = LLMTrainingSpec.model_validate(owner["spec"])
    stage = planned_stages(spec)[1]
    _, service, _ = children(owner, spec, stage, stage_config(owner, spec, stage, 1, {}), "trainer:1")
    service["metadata"] = {"namespace": "one", "name": "of-a-training"}  # nobody's, or it would be collected as garbage
    assert kubectl(helm, service).returncode == 0
    for name in ("op-metrics", "of-a-training"):
        assert helm.get("service", "-n", "one", name)["spec"]["ipFamilies"] == ["IPv4", "IPv6"]


def test_definitions_that_kubectl_applied_are_left(helm: Helm, tmp_path: Path) -> None:
    helm.plane.kubectl("apply", "--server-side", "-f", REPOSITORY / "crds")
    newer = chart_of(tmp_path / "newer", "0.2.0", column="Newer")
    assert "invalid ownership metadata" in helm.refusal("install", "llm-operator", "llm-operator", chart=newer)
    helm.install("llm-operator", "llm-operator")
    helm.does("upgrade", "llm-operator", CHART, "--namespace", "llm-operator")
    helm.does("uninstall", "llm-operator", "--namespace", "llm-operator")
    assert helm.exists("crd", DEFINITION)


def test_releases_for_different_namespaces(helm: Helm) -> None:
    """Also of one name; a namespace is served by one of them."""
    for team in ("team-a", "team-b", "team-c"):
        helm.plane.kubectl("create", "namespace", team)
    helm.install("op", "one", "--set", "namespaces={team-a}")
    helm.install("op", "two", "--set", "namespaces={team-b}")
    for namespaces in ('["team-c", "team-a"]', "[]"):
        refused = helm.refusal("install", "op", "three", "--set-json", f"namespaces={namespaces}")
        assert "namespace team-a is served already, by the release op in one" in refused
    refused = helm.refusal("upgrade", "op", "two", "--set", "namespaces={team-a}")
    assert "namespace team-a is served already" in refused
    helm.does("upgrade", "op", CHART, "--namespace", "two", "--set", "namespaces={team-b,team-c}")
    helm.does("uninstall", "op", "--namespace", "one")
    helm.install("op", "three", "--set", "namespaces={team-a}")


def test_a_release_for_all_namespaces_is_alone(helm: Helm) -> None:
    helm.install("op", "one")
    for namespaces in ('["one"]', "[]"):
        refused = helm.refusal("install", "op", "two", "--set-json", f"namespaces={namespaces}")
        assert "all namespaces are served already, by the release op in one" in refused
    helm.does("upgrade", "op", CHART, "--namespace", "one", "--set", "namespaces={one}")
    assert not helm.exists("clusterrole", "llm-operator")
    helm.does("upgrade", "op", CHART, "--namespace", "one", "--set-json", "namespaces=[]")
    assert helm.exists("clusterrole", "llm-operator")


def test_rights_in_its_namespaces_are_enough_where_somebody_else_installs_what_is_the_clusters(helm: Helm) -> None:
    helm.plane.kubectl("apply", "--server-side", "-f", REPOSITORY / "crds")
    for namespace in ("own", "served"):
        helm.plane.kubectl("create", "namespace", namespace)
        helm.plane.kubectl("-n", namespace, "create", "role", "all", "--verb=*", "--resource=*.*")
        helm.plane.kubectl("-n", namespace, "create", "rolebinding", "all", "--role=all", f"--user={OUTSIDER}")
    ours = ("--kube-as-user", OUTSIDER, "--set", "namespaces={served}")
    helm_does = helm("install", "op", CHART, "--namespace", "own", *ours)
    assert "forbidden" in helm_does.stderr, "this user may not read what is the cluster's"
    helm.does("install", "op", CHART, "--namespace", "own", *ours,
              "--set", "crds.install=false,rbac.aggregateClusterRoles=false")  # fmt: skip


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        (
            "view",
            ["get llmtrainings", "watch llmservings", "get llmservings --subresource=scale", "list llmapps",
             "get llmtrainings --subresource=status"],
            ["create llmtrainings", "update llmservings --subresource=scale"],
        ),
        (
            "edit",
            ["list llmtrainings", "create llmtrainings", "deletecollection llmservings",
             "patch llmservings --subresource=scale", "patch llmapps --subresource=scale",
             "get llmservings --subresource=status"],
            ["update llmtrainings --subresource=status", "patch llmservings --subresource=status"],
        ),
        (
            "admin",
            ["get llmtrainings", "delete llmtrainings", "update llmservings --subresource=scale"],
            ["update llmtrainings --subresource=status"],
        ),
    ],
)  # fmt: skip
def test_kubernetes_own_roles(helm: Helm, role: str, may: list[str], may_not: list[str]) -> None:
    helm.install("op", "one")
    namespace, user = f"of-{role}", f"user-{role}"
    helm.plane.kubectl("create", "namespace", namespace)
    helm.plane.kubectl("-n", namespace, "create", "rolebinding", "own", f"--clusterrole={role}", f"--user={user}")

    def can(what: str) -> bool:
        verb, resource, *rest = what.split()
        question = (verb, f"{resource}.llm-operator.io", *rest, "-n", namespace, "--as", user)
        return helm.plane.kubectl("auth", "can-i", *question, check=False).strip() == "yes"

    wait("the controller that aggregates roles", lambda: all(map(can, may)))
    assert not [what for what in may_not if can(what)]
