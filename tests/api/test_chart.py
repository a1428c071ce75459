"""The chart as Helm renders it, and as the API server takes it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_operator.api.app import LLMAppSpec, ResolvedModel
from llm_operator.api.network import as_written
from llm_operator.api.reasons import Reason
from llm_operator.api.resources import DEFAULT_DEVICES, Devices
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.apps.manifests import workload
from llm_operator.apps.model import Choice
from llm_operator.kube.network import OPERATOR_PODS
from llm_operator.serving import names
from llm_operator.serving.manifests import Image
from llm_operator.serving.manifests import ports as serving_ports
from llm_operator.settings import Settings
from llm_operator.training.manifests import children
from llm_operator.training.stages import planned_stages, stage_config
from llm_trainer.protocol import PROGRESS_PORT
from tests.app_specs import PLAIN
from tests.cluster.cluster import binaries
from tests.cluster.control_plane import ControlPlane
from tests.cluster.settings import REPOSITORY
from tests.e2e.rbac import granted
from tests.specs import TRAINING
from tests.unit.world import custom_resource

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
        ("childImagePullSecrets={My Secret}", "childImagePullSecrets"),
        ("childImagePullSecrets={two..dots}", "childImagePullSecrets"),
        ("namespaces={one,one}", "namespaces"),
        ("extraEnv[0].value=1", "extraEnv"),
        ("extraEnv[0].name=WORKERS", "WORKERS is written by the chart; the value for it: settings.workers"),
        (r"podLabels.app\.kubernetes\.io/name=mine", "app.kubernetes.io/name"),
        ("networkPolicy.apiServerPorts={https}", "apiServerPorts"),
        ("networkPolicies.enable=true", "enable"),
        ("networkPolicies.metricsFrom={monitoring}", "metricsFrom"),
        ("serviceAccount.create=false", "serviceAccount.name"),
        ("image.digest=0.1.0", "/image/digest"),
        ("trainerImage.digest=sha256:abc", "/trainerImage/digest"),
        ("admissionPolicies.images={registry.example.com/llm}", "/admissionPolicies/images"),
        ("admissionPolicies.actions={deny}", "/admissionPolicies/actions"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(value: str, says: str) -> None:
    done = helm("--set", value)
    assert done.returncode != 0
    assert says in done.stderr


def test_namespaces_take_roles_instead_of_a_cluster_role() -> None:
    manifests = rendered("--set", "namespaces={one,two}")
    assert not [m for m in manifests if m["kind"] == "ClusterRoleBinding"]
    assert {m["metadata"]["namespace"] for m in manifests if m["kind"] == "Role"} == {"llm-operator", "one", "two"}
    alone = rendered("--set", "namespaces={one,two},rbac.aggregateClusterRoles=false,crds.install=false")
    assert all("namespace" in m["metadata"] for m in alone), "nothing is the cluster's"


def test_nothing_is_bound_to_what_is_for_users() -> None:
    """The operator's rights are those that it uses; users' stand in roles of their own."""
    manifests = rendered()
    (bound,) = (m for m in manifests if m["kind"] == "ClusterRoleBinding")
    aggregated = [
        m for m in manifests if m["kind"] == "ClusterRole" and m["metadata"]["name"] != bound["roleRef"]["name"]
    ]
    assert len(aggregated) == 2
    assert ("llm-operator.io", "llmtrainings", "deletecollection") not in granted(yaml.safe_dump_all(manifests))
    for role in aggregated:
        labels = role["metadata"]["labels"]
        assert any(label.startswith("rbac.authorization.k8s.io/aggregate-to-") for label in labels)
        assert {group for rule in role["rules"] for group in rule["apiGroups"]} == {"llm-operator.io"}


def test_settings_reach_the_operator() -> None:
    container = one(rendered("--set", "settings.workers=4"), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "WORKERS", "value": "4"} in container["env"]


def environment(*arguments: str) -> dict[str, str]:
    container = one(rendered(*arguments), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


def test_a_digest_goes_before_a_tag() -> None:
    digest = f"sha256:{'0a' * 32}"
    given = ("--set", f"image.digest={digest},image.tag=old,trainerImage.digest={digest}")
    (container,) = one(rendered(*given), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"llm-operator@{digest}"
    assert environment(*given)["TRAINER_IMAGE"] == environment(*given)["SERVING_IMAGE"] == f"llm-trainer@{digest}"
    own = environment("--set", f"servingImage.repository=vllm,servingImage.digest={digest}")
    assert own["SERVING_IMAGE"] == f"vllm@{digest}"
    assert own["TRAINER_IMAGE"] == "llm-trainer:0.1.0"


def test_the_devices_of_the_chart_are_those_of_the_operator() -> None:
    assert Settings.from_environment(environment()).devices == DEFAULT_DEVICES


def test_devices_are_added() -> None:
    given = environment("--set", "gpuResources={nvidia.com/gpu,gpu.example.com/*}", "--set-json", "otherResources=[]")
    assert Settings.from_environment(given).devices == Devices(("nvidia.com/gpu", "gpu.example.com/*"), ())


def test_pull_secrets_of_children_reach_the_operator() -> None:
    given = environment("--set", "childImagePullSecrets={mirror,hub}")
    assert Settings.from_environment(given).child_image_pull_secrets == ("mirror", "hub")


def test_policies_of_children_reach_the_operator(tmp_path: Path) -> None:
    """With the rights that they take, which nobody has without."""
    assert not Settings.from_environment(environment()).network_policies.enabled
    assert "networkpolicies" not in {resource for _, resource, _ in granted(yaml.safe_dump_all(rendered()))}
    file = tmp_path / "values.json"
    file.write_text(json.dumps({"networkPolicies": EVERYTHING["networkPolicies"]}))
    given = Settings.from_environment(environment("--values", str(file))).network_policies
    assert given.enabled
    assert as_written(given.metrics_from) == EVERYTHING["networkPolicies"]["metricsFrom"]
    assert as_written(given.serving_from) == EVERYTHING["networkPolicies"]["servingFrom"]
    assert as_written(given.extra_egress) == EVERYTHING["networkPolicies"]["extraEgress"]
    rights = granted(yaml.safe_dump_all(rendered("--values", str(file))))
    assert {verb for _, resource, verb in rights if resource == "networkpolicies"} == {
        "list", "watch", "create", "patch", "delete",
    }  # fmt: skip


def test_the_operators_pods_are_those_that_policies_let_in() -> None:
    labels = one(rendered(), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert OPERATOR_PODS.items() <= labels.items()


def test_the_chart_knows_every_setting() -> None:
    """Those that it writes itself are refused in extraEnv: of two variables of one name the last would count."""
    for name in Settings.model_fields:
        done = helm("--set", f"extraEnv[0].name={name.upper()}")
        assert f"extraEnv: {name.upper()} is written by the chart" in done.stderr


EVERYTHING: dict[str, Any] = {
    "imagePullSecrets": [{"name": "mirror"}],
    "childImagePullSecrets": ["mirror"],
    "serviceAccount": {"name": "its-own", "annotations": {"cloud.example.com/role": "operator"}},
    "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "supplementalGroups": [7]},
    "securityContext": {"privileged": False},
    "extraEnv": [
        {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}},
    ],
    "extraVolumes": [{"name": "certificates", "configMap": {"name": "certificates"}}],
    "extraVolumeMounts": [{"name": "certificates", "mountPath": "/etc/ssl/own"}],
    "podAnnotations": {"karpenter.sh/do-not-disrupt": "true"},
    "podLabels": {"cost-center": "42"},
    "nodeSelector": {"pool": "system"},
    "tolerations": [{"key": "system", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "topology.kubernetes.io/zone", "labelSelector": {"matchLabels": {"app": "llm-operator"}}}
    ]}},
    "priorityClassName": "system-cluster-critical",
    "admissionPolicies": {
        "enabled": True,
        "images": ["registry.example.com/"],
        "priorityClasses": ["batch"],
        "tolerations": ["team-a"],
        "protectedClaims": {"example.com/protected": "true"},
    },
    "networkPolicy": {
        "enabled": True,
        "apiServerPorts": [6443],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "extraEgress": [{"ports": [{"port": 9400}], "to": [{"ipBlock": {"cidr": "10.0.0.0/16"}}]}],
    },
    "networkPolicies": {
        "enabled": True,
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "servingFrom": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "gateway"}}}],
        "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                         "ports": [{"port": 8080, "endPort": 8090, "protocol": "TCP"}, {"port": "dns"}]}],
    },
}  # fmt: skip


def everything(folder: Path) -> list[Manifest]:
    file = folder / "values.json"
    file.write_text(json.dumps(EVERYTHING))
    return rendered("--values", str(file))


def test_every_value_reaches_the_pods(tmp_path: Path) -> None:
    template = one(everything(tmp_path), "Deployment")["spec"]["template"]
    pod, (container,) = template["spec"], template["spec"]["containers"]
    for field in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert pod[field] == EVERYTHING[field]
    assert pod["serviceAccountName"] == "its-own"
    assert pod["securityContext"] == {
        "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, "supplementalGroups": [7],
    }  # fmt: skip
    assert container["securityContext"]["privileged"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True, "what is left out stays"
    assert container["env"][-2:] == EVERYTHING["extraEnv"]
    assert [volume["name"] for volume in pod["volumes"]] == ["tmp", "certificates"]
    assert [mount["name"] for mount in container["volumeMounts"]] == ["tmp", "certificates"]
    assert template["metadata"]["annotations"] == EVERYTHING["podAnnotations"]
    assert template["metadata"]["labels"]["cost-center"] == "42"
    assert template["metadata"]["labels"]["app.kubernetes.io/name"] == "llm-operator"


def test_a_network_policy_leaves_the_operator_its_work(tmp_path: Path) -> None:
    """It is off by default. Ports are those of the pod and of the trainer."""
    assert not [m for m in rendered() if m["kind"] == "NetworkPolicy"]
    manifests = everything(tmp_path)
    spec = one(manifests, "NetworkPolicy")["spec"]
    (container,) = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    labels = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    named = {port["port"]: rule.get("from") for rule in spec["ingress"] for port in rule["ports"]}
    assert set(named) == {port["name"] for port in container["ports"]}
    assert named == {"probes": None, "metrics": EVERYTHING["networkPolicy"]["metricsFrom"]}
    out = {port["port"]: rule.get("to") for rule in spec["egress"] for port in rule["ports"]}
    assert out == {53: None, 6443: None, PROGRESS_PORT: [{"ipBlock": {"cidr": "10.0.0.0/16"}}]}
    assert [{"namespaceSelector": {}}] in [rule.get("to") for rule in spec["egress"]]
    served = one(rendered("--set", "networkPolicy.enabled=true,namespaces={one,two}"), "NetworkPolicy")["spec"][
        "egress"
    ]
    (progress,) = (rule["to"] for rule in served if "to" in rule)
    (namespaces,) = progress[0]["namespaceSelector"]["matchExpressions"]
    assert namespaces == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["one", "two"]}


MONITORED = ("--set", "monitoring.enabled=true,monitoring.labels.release=prometheus")


def test_what_prometheus_scrapes_is_what_pods_have() -> None:
    """Ports and labels of the pods, as the operator makes them."""
    found = rendered(*MONITORED, "--api-versions", "monitoring.coreos.com/v1", "--set", "namespaces={team}")
    made = [one for one in found if one["apiVersion"] == "monitoring.coreos.com/v1"]
    assert sorted(one["kind"] for one in made) == [*["PodMonitor"] * 3, "PrometheusRule", "ServiceMonitor"]
    assert all(one["metadata"]["labels"]["release"] == "prometheus" for one in made)
    trainings, servings, apps = (one["spec"] for one in made if one["kind"] == "PodMonitor")
    assert trainings["namespaceSelector"] == {"matchNames": ["team"]}
    pod = training_pod()
    (trainer,) = pod["spec"]["containers"]
    served = names.selector({"metadata": {"name": "chat"}})
    for spec, labels, ports in (
        (trainings, pod["metadata"]["labels"], trainer["ports"]),
        (servings, served, serving_ports(Image("vllm", has_launcher=False))),
        (apps, app_pod()["metadata"]["labels"], app_pod()["spec"]["containers"][0]["ports"]),
    ):
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        assert {one["key"] for one in spec["selector"]["matchExpressions"]} <= set(labels)
        assert {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]} <= {port["name"] for port in ports}
    (rules,) = (one["spec"] for one in made if one["kind"] == "PrometheusRule")
    assert rules == yaml.safe_load((CHART / "alerts.yaml").read_text())


def app_pod() -> Manifest:
    spec = LLMAppSpec.model_validate(PLAIN)
    told = ResolvedModel(url="http://chat-serving.team.svc/v1", name="chat")
    choice = Choice(Reason.MODEL_RESOLVED, "", holds=True, model=told)
    _, deployment = workload(custom_resource("LLMApp", "help", PLAIN), spec, choice, (), {}, "app:1", ())
    pod: Manifest = deployment["spec"]["template"]
    return pod


def training_pod() -> Manifest:
    spec = LLMTrainingSpec.model_validate(TRAINING)
    training = custom_resource("LLMTraining", "chat", TRAINING)
    stage = planned_stages(spec)[0]
    found = children(training, spec, stage, stage_config(training, spec, stage, 1, {}), "trainer:1")
    pod: Manifest = next(one for one in found if one["kind"] == "Job")["spec"]["template"]
    return pod


def test_dashboards_are_found_by_their_label() -> None:
    found = [one for one in rendered("--set", "monitoring.dashboards=true") if one["kind"] == "ConfigMap"]
    assert len(found) == len(list((CHART / "dashboards").iterdir()))
    for one in found:
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        ((name, text),) = one["data"].items()
        assert json.loads(text) == json.loads((CHART / "dashboards" / name).read_text())


def test_monitoring_without_its_definitions_is_one_line() -> None:
    done = helm(*MONITORED)
    assert done.returncode != 0
    assert "monitoring.enabled: the cluster has no monitoring.coreos.com/v1" in done.stderr


def test_values_and_their_schema_are_in_step() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    properties = json.loads((CHART / "values.schema.json").read_text())["properties"]
    assert set(values) == set(properties) - {"global"}
    readme = (CHART / "README.md").read_text()
    assert not [name for name in values if f"`{name}" not in readme]


@pytest.mark.parametrize("values", ["default", "everything"])
def test_the_api_server_takes_every_manifest(api_server: ControlPlane, tmp_path: Path, values: str) -> None:
    api_server.kubectl("create", "namespace", "llm-operator", check=False)
    made = {"apiVersion": "v1", "kind": "List", "items": rendered() if values == "default" else everything(tmp_path)}
    done = subprocess.run(
        [binaries() / "kubectl", "--kubeconfig", api_server.kubeconfig, "apply", "--server-side", "--force-conflicts",
         "--dry-run=server", "--validate=strict", "-f", "-"],
        input=json.dumps(made), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
