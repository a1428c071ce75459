"""What a user sets of pods, in a pod of each kind."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_operator.api.pod_validation import OUR_VOLUMES
from llm_operator.api.pods import OUR_DOMAINS, OUR_KEYS, PodSettings
from llm_operator.api.resources import Resources
from llm_operator.api.serving import LLMServingSpec, ServedAdapter, ServedResult
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.kube.labels import JOB_NAME
from llm_operator.kube.plan import Manifest
from llm_operator.kube.templates import (
    AS_WRITTEN,
    CONTAINER_SECURITY,
    POD_SECURITY,
    SCRATCH_VOLUMES,
    pod_template,
    resource_requirements,
)
from llm_operator.serving import manifests as serving
from llm_operator.serving.annotations import PLACE, TEMPLATE
from llm_operator.training import manifests as training
from llm_operator.training.stages import planned_stages, stage_config
from tests.pod_cases import ALL_PODS, Pods
from tests.specs import SERVING, TRAINING, changed
from tests.unit.world import custom_resource


def of_training(pods: Pods, pull_secrets: tuple[str, ...] = ()) -> Manifest:
    """The template of the stage base's pods."""
    owner = custom_resource("LLMTraining", "bilingual", changed(TRAINING, pods=pods))
    spec = LLMTrainingSpec.model_validate(owner["spec"])
    stage = planned_stages(spec)[1]
    *_, job = training.children(owner, spec, stage, stage_config(owner, spec, stage, 1, {}), "trainer:1", pull_secrets)
    template: Manifest = job["spec"]["template"]
    return template


def of_serving(pods: Pods, pull_secrets: tuple[str, ...] = ()) -> Manifest:
    owner = custom_resource("LLMServing", "chat", changed(SERVING, pods=pods))
    model, adapter = (
        ServedResult(uri="pvc://models/run", digest="sha256:a", step=1),
        ServedAdapter(name="law", uri="pvc://law/run", rank=8),
    )
    spec = LLMServingSpec.model_validate(owner["spec"])
    image = serving.Image("vllm:1", has_launcher=True)
    surroundings = serving.Surroundings(image, pull_secrets=tuple(pull_secrets))
    made = serving.template(owner, spec, model, [adapter], surroundings)
    for hashed in (PLACE, TEMPLATE):
        del made["metadata"]["annotations"][hashed]
    return made


both = pytest.mark.parametrize("template", [of_training, of_serving])


def container(template: Manifest) -> dict[str, Any]:
    (found,) = template["spec"]["containers"]
    return dict(found)


def names(items: list[dict[str, Any]], key: str = "name") -> list[str]:
    return [item[key] for item in items]


@both
def test_every_field_reaches_the_pod(template: Any) -> None:
    made, ours = template(ALL_PODS), template({})
    spec, pod = made["spec"], container(made)
    assert {field: spec[field] for field in AS_WRITTEN} == {field: ALL_PODS[field] for field in AS_WRITTEN}
    assert spec["imagePullSecrets"] == ALL_PODS["imagePullSecrets"]
    for field in ("labels", "annotations"):
        assert made["metadata"][field] == ALL_PODS[field] | ours["metadata"].get(field, {})
    assert spec["tolerations"] == ALL_PODS["tolerations"] + ours["spec"].get("tolerations", [])
    assert spec["topologySpreadConstraints"][1] == ALL_PODS["topologySpreadConstraints"][1]
    assert spec["securityContext"] == POD_SECURITY | ALL_PODS["securityContext"]
    wanted = ALL_PODS["containerSecurityContext"]
    assert pod["securityContext"] == CONTAINER_SECURITY | wanted | {
        "capabilities": {"add": ["IPC_LOCK"], "drop": ["ALL"]}
    }
    for field in ("env", "volumeMounts"):
        assert all(item in pod[field] for item in ALL_PODS[field]), field
    assert all(volume in spec["volumes"] for volume in ALL_PODS["volumes"])
    assert pod["envFrom"] == ALL_PODS["envFrom"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Gi"}} in spec["volumes"]
    assert pod["resources"]["claims"] == [{"name": "gpus"}, {"name": "fabric"}]
    assert spec["automountServiceAccountToken"] is False


@both
def test_nothing_set_changes_nothing(template: Any) -> None:
    empty = {field: type(value)() for field, value in ALL_PODS.items() if isinstance(value, list)}
    assert template(empty) == template({})


@both
def test_pull_secrets_of_the_operator_are_beside_the_users(template: Any) -> None:
    def secrets(pods: Pods, given: tuple[str, ...]) -> Any:
        return template(pods, given)["spec"].get("imagePullSecrets")

    assert secrets({}, ()) is None
    assert secrets({}, ("mirror", "hub")) == [{"name": "mirror"}, {"name": "hub"}]
    own = {"imagePullSecrets": [{"name": "own"}, {"name": "hub"}]}
    assert secrets(own, ("mirror", "hub")) == [{"name": "own"}, {"name": "hub"}, {"name": "mirror"}]


@both
def test_what_is_not_set_stays_restricted(template: Any) -> None:
    one = template({"securityContext": {"runAsUser": 7}, "containerSecurityContext": {"capabilities": {"drop": []}}})
    assert one["spec"]["securityContext"] == {**POD_SECURITY, "runAsUser": 7}
    assert container(one)["securityContext"] == {**CONTAINER_SECURITY, "capabilities": {"drop": []}}


@both
def test_privileged_needs_no_second_field(template: Any) -> None:
    security = container(template({"containerSecurityContext": {"privileged": True}}))["securityContext"]
    assert security["privileged"]
    assert "allowPrivilegeEscalation" not in security, "the API server refuses false with privileged"


@both
@pytest.mark.parametrize(("path", "ours"), [("/tmp", "tmp"), ("//tmp/", "tmp"), ("/dev/shm", "shm"), ("/tmp/x", None)])
def test_a_mount_takes_the_place_of_ours(template: Any, path: str, ours: str | None) -> None:
    made = template({
        "volumes": [{"name": "mine", "emptyDir": {}}], "volumeMounts": [{"name": "mine", "mountPath": path}],
    })  # fmt: skip
    left = {"tmp", "shm"} - {ours}
    for found in (names(made["spec"]["volumes"]), names(container(made)["volumeMounts"])):
        assert set(found) & {"tmp", "shm"} == left
        assert "mine" in found


def scratch(template: Manifest) -> dict[str, Any]:
    volumes = template["spec"]["volumes"]
    return {v["name"]: v["emptyDir"]["sizeLimit"] for v in volumes if v["name"] in ("tmp", "shm")}


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        ({}, {"tmp": "64Gi", "shm": "64Gi"}),
        ({"memory": "500Gi"}, {"tmp": "64Gi", "shm": "500Gi"}),  # what the kubelet would allow without a size limit
        ({"ephemeral-storage": "2T"}, {"tmp": "2T", "shm": "64Gi"}),
    ],
)
def test_scratch_is_as_large_as_the_pod_may_be(limits: dict[str, str], sizes: dict[str, str]) -> None:
    container = {
        "env": [],
        "volumeMounts": [],
        "securityContext": CONTAINER_SECURITY,
        "resources": resource_requirements(Resources(limits=limits)),
    }
    spec = {"securityContext": {}, "volumes": SCRATCH_VOLUMES, "containers": [container]}
    assert scratch(pod_template(PodSettings(), {}, spec, {})) == sizes
    assert scratch(pod_template(PodSettings(shm_size="1Gi"), {}, spec, {})) == {**sizes, "shm": "1Gi"}


@both
def test_scratch_has_a_size(template: Any) -> None:
    assert scratch(template({})) == {"tmp": "64Gi", "shm": "64Gi"}
    assert scratch(template({"shmSize": "64Mi"})) == {"tmp": "64Gi", "shm": "64Mi"}


@pytest.mark.parametrize(
    ("limits", "requests", "asks"),
    [
        ({}, {}, {"cpu": "100m", "memory": "512Mi"}),
        ({"cpu": "0.05", "nvidia.com/gpu": "1"}, {}, {"memory": "512Mi"}),  # Kubernetes takes the limit
        ({"memory": "1Gi"}, {"cpu": "2"}, {"cpu": "2"}),
        ({"cpu": "2", "memory": "1Gi"}, {}, {}),
        ({}, {"cpu": "2", "memory": "1Gi"}, {"cpu": "2", "memory": "1Gi"}),
    ],
)
def test_a_pod_asks_for_something(limits: dict[str, str], requests: dict[str, str], asks: dict[str, str]) -> None:
    made = resource_requirements(Resources(limits=limits, requests=requests))
    assert made.get("requests", {}) == asks
    assert made.get("limits", {}) == limits


@both
def test_a_host_network_keeps_the_clusters_dns(template: Any) -> None:
    assert template({"hostNetwork": True})["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet"


@both
def test_a_constraint_without_selector_is_about_these_pods(template: Any) -> None:
    made = template({"topologySpreadConstraints": ALL_PODS["topologySpreadConstraints"][:1]})
    (constraint,) = made["spec"]["topologySpreadConstraints"]
    selected = constraint["labelSelector"]["matchLabels"]
    labels = made["metadata"]["labels"] | {JOB_NAME: "bilingual-base-1-f737e"}
    assert selected
    assert selected.items() <= labels.items()


def test_the_time_for_a_lost_node_is_the_users() -> None:
    own = {
        "key": "node.kubernetes.io/unreachable",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 600,
    }
    found = of_training({"tolerations": [own]})["spec"]["tolerations"]
    assert [t["tolerationSeconds"] for t in found if t["key"] == own["key"]] == [600]
    other = of_training({"tolerations": [{**own, "effect": "NoSchedule", "tolerationSeconds": None}]})["spec"][
        "tolerations"
    ]
    assert [t["effect"] for t in other if t["key"] == own["key"]] == ["NoSchedule", "NoExecute"]


@both
def test_what_is_ours_cannot_be_set(template: Any) -> None:
    """Else a user's would collide with it."""
    made = template({})
    assert all(OUR_VOLUMES.fullmatch(name) for name in names(made["spec"]["volumes"]))
    for keys in made["metadata"].values():
        assert all(key in OUR_KEYS or key.startswith(OUR_DOMAINS) for key in keys)


ENV = st.sampled_from(["NODE_NAME", "POD_NAME", "HOME", "HF_HOME", "MASTER_ADDR", "A", "B"])
PATHS = st.sampled_from(["/tmp", "/tmp/", "/dev/shm", "/mnt/a", "/mnt/b"])
VOLUMES = st.sampled_from(["a", "b", "c"])
ITEMS = partial(st.lists, max_size=6)


@both
@given(
    env=ITEMS(ENV, unique=True), mounts=ITEMS(st.tuples(VOLUMES, PATHS), unique_by=lambda mount: mount[1].rstrip("/"))
)
def test_never_two_of_one_name(template: Any, env: list[str], mounts: list[tuple[str, str]]) -> None:
    made = template(
        {
            "env": [{"name": name, "value": "mine"} for name in env],
            "volumes": [{"name": name, "emptyDir": {}} for name in dict.fromkeys(name for name, _ in mounts)],
            "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts],
        }
    )
    pod, volumes = container(made), names(made["spec"]["volumes"])
    paths = [path.rstrip("/") for path in names(pod["volumeMounts"], "mountPath")]
    for found in (names(pod["env"]), volumes, paths):
        assert max(Counter(found).values()) == 1, found
    assert set(names(pod["volumeMounts"])) == set(volumes), "a volume is not mounted, or a mount has none"
    assert {variable["name"] for variable in pod["env"] if variable.get("value") == "mine"} == set(env)
