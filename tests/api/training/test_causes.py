"""Why the pods of a training don't start, whoever knows it: the scheduler, a kubelet, events, a claim."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.training.conftest import NAME, Found, Lab, container_status
from tests.specs import TRAINING, changed


def data_pod(lab: Lab) -> str:
    """Of the data stage; nobody has looked at it yet."""
    lab.until(lambda: bool(lab.stage("data")["attempts"]))
    job = lab.stage("data")["attempts"][0]["job"]
    lab.until(lambda: bool(lab.pods(job)))
    return lab.pods(job)[0]


def bind(lab: Lab, pod: str, node: str) -> None:
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod},
        "target": {"kind": "Node", "name": node},
    }
    file = lab.plane.state / "binding.json"
    file.write_text(json.dumps(binding))
    lab.kubectl("create", "--raw", f"/api/v1/namespaces/{lab.namespace}/pods/{pod}/binding", "-f", file)


def warn(lab: Lab, regarding: Found, reason: str, note: str) -> None:
    """As a kubelet does, by the old API."""
    about = {key: regarding["metadata"][key] for key in ("name", "namespace", "uid")}
    event = {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": f"{about['name']}.{reason.lower()}"},
        "involvedObject": {"apiVersion": "v1", "kind": regarding["kind"], **about}, "type": "Warning",
        "reason": reason, "message": note, "lastTimestamp": "2026-01-01T00:00:00Z", "source": {"component": "kubelet"},
    }  # fmt: skip
    file = lab.plane.state / "event.json"
    file.write_text(json.dumps(event))
    lab.kubectl("create", "-f", file)


def claim_with(lab: Lab, *modes: str) -> None:
    lab.kubectl("delete", "pvc", "models")
    spec = {"accessModes": list(modes), "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}}
    lab.apply("v1", "PersistentVolumeClaim", "models", spec)


def start(lab: Lab, **changes: Any) -> None:
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, changed(TRAINING, **changes))


@pytest.mark.parametrize("mode", ["ReadWriteOnce", "ReadWriteOncePod"])
def test_a_disk_of_one_node_and_two_pods(lab: Lab, mode: str) -> None:
    claim_with(lab, mode)
    start(lab)
    lab.until(lambda: lab.condition("Running")["reason"] == "PersistentVolumeClaimAccessMode")
    said = lab.condition("Running")["message"]
    assert f"PersistentVolumeClaim models has the access mode {mode}" in said
    assert "stage base has 2 pods" in said
    assert not lab.jobs(), "told before anything starts, data preparation too"
    claim_with(lab, "ReadWriteMany")
    data_pod(lab)


@pytest.mark.parametrize(
    "changes",
    [{"nodes": 1}, {"pods": {"nodeSelector": {"kubernetes.io/hostname": "gpu-1"}}}],
    ids=["one pod", "one node"],
)
def test_a_disk_of_one_node_is_enough(lab: Lab, changes: dict[str, Any]) -> None:
    claim_with(lab, "ReadWriteOnce")
    start(lab, **changes)
    data_pod(lab)


def test_an_init_container_that_fails(lab: Lab) -> None:
    start(lab)
    pod = data_pod(lab)
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    ended = {"terminated": {"exitCode": 3, "reason": "Error", "message": "iptables: no rights\n"}}
    trainer = container_status("trainer", {"waiting": {"reason": "PodInitializing"}})
    init = container_status("istio-init", waiting, lastState=ended)
    lab.set_pod(pod, {"phase": "Pending", "initContainerStatuses": [init], "containerStatuses": [trainer]})
    lab.until(lambda: lab.condition("Running")["reason"] == "InitContainerFailed")
    said = lab.condition("Running")["message"]
    assert f"pod {pod}, init container istio-init, exit code 3: iptables: no rights" in said
    lab.set_pod(pod, {"phase": "Failed", "initContainerStatuses": [container_status("istio-init", ended)]})
    lab.until(lambda: len(lab.stage("data")["attempts"]) == 2)
    first = lab.stage("data")["attempts"][0]
    assert (first["reason"], first["fault"]) == ("InitContainerFailed", "Infrastructure")
    assert "exit code 3: iptables: no rights" in first["message"]


def test_a_scheduling_gate(lab: Lab) -> None:
    start(lab)
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gated"}
    lab.set_pod(data_pod(lab), {"conditions": [gated]})
    lab.until(lambda: lab.condition("Running")["reason"] == "SchedulingGated")


def test_a_volume_that_another_node_has(lab: Lab) -> None:
    start(lab)
    pod = data_pod(lab)
    bind(lab, pod, "node-1")
    creating = container_status("trainer", {"waiting": {"reason": "ContainerCreating"}})
    lab.set_pod(pod, {"phase": "Pending", "containerStatuses": [creating]})
    note = "Multi-Attach error for volume pv-1: it is used by pod other on node-2"
    warn(lab, lab.pod(pod), "FailedAttachVolume", note)
    lab.until(lambda: lab.condition("Running")["reason"] == "FailedMount")
    assert f"pod {pod} on node node-1: FailedAttachVolume: {note}" in lab.condition("Running")["message"]
    lab.set_container(pod, "Running", {"running": {}})
    lab.until(lambda: lab.phase() == "Running")


def test_a_claim_that_nobody_provides(lab: Lab) -> None:
    start(lab)
    pod = data_pod(lab)
    said = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
    claim = json.loads(lab.kubectl("get", "pvc", "models", "-o", "json"))
    warn(lab, claim, "ProvisioningFailed", 'storageclass "fast" not found')
    lab.set_pod(pod, {"conditions": [unschedulable]})
    lab.until(lambda: "storageclass" in lab.condition("Running")["message"])
    assert lab.condition("Running")["reason"] == "Unschedulable"
    assert "PersistentVolumeClaim models: ProvisioningFailed" in lab.condition("Running")["message"]
