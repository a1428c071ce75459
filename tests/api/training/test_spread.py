"""Where a real scheduler puts the pods of a stage: on as many nodes as there are, and on one if the others can't."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.api.training.conftest import NAME, Found, Lab
from tests.specs import TRAINING, changed

HALF = {"limits": {"nvidia.com/gpu": 4, "cpu": "4", "memory": "8Gi"}}
ROOM = {"cpu": "64", "memory": "512Gi", "pods": "110"}


def put(lab: Lab, manifest: Found) -> None:
    file = lab.plane.state / f"{manifest['kind']}.json"
    file.write_text(json.dumps(manifest))
    lab.kubectl("apply", "--server-side", "-f", file)


def beat(lab: Lab, node: str, gpus: int) -> None:
    """As a kubelet does every few seconds: without, the node is taken for lost."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
    room = ROOM | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    status = {"conditions": [ready], "capacity": room, "allocatable": room}
    lab.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


@pytest.fixture
def pending(lab: Lab) -> Iterator[list[str]]:
    """The pods of stage base, which no scheduler has seen yet; their claims are bound."""
    for claim in ("models", "corpus"):
        reference = {"kind": "PersistentVolumeClaim", "namespace": lab.namespace, "name": claim}
        spec = {"accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Gi"}, "storageClassName": "none",
                "claimRef": reference, "hostPath": {"path": "/nowhere"}}  # fmt: skip
        metadata = {"name": f"{lab.namespace}-{claim}"}
        put(lab, {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec})
    spec = changed(TRAINING, resources=HALF)
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, spec)
    lab.succeed("data", lab.start_pods("data"))
    lab.until(lambda: bool(lab.stage("base")["attempts"]))
    job = lab.stage("base")["attempts"][0]["job"]
    lab.until(lambda: len(lab.pods(job)) == 2)
    try:
        yield lab.pods(job)
    finally:
        lab.plane.processes.stop("kube-scheduler")
        lab.kubectl("delete", "nodes", "--all")


@pytest.mark.parametrize(
    ("nodes", "used"),
    [({"one": 8, "cpu-1": 0, "cpu-2": 0}, {"one"}), ({"gpu-1": 8, "gpu-2": 8}, {"gpu-1", "gpu-2"})],
    ids=["one node with GPUs", "two nodes with GPUs"],
)
def test_where_two_pods_run(lab: Lab, pending: list[str], nodes: dict[str, int], used: set[str]) -> None:
    for name in nodes:  # no name twice: the pods of another test are still bound to it
        labels = {"kubernetes.io/hostname": name}
        put(lab, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})

    def scheduled() -> bool:
        for name, gpus in nodes.items():
            beat(lab, name, gpus)
        return all(lab.pod(pod)["spec"].get("nodeName") for pod in pending)

    def untainted() -> bool:
        scheduled()
        return not lab.kubectl("get", "nodes", "-o", "jsonpath={.items[*].spec.taints}")

    lab.until(untainted)
    lab.plane.start_scheduler()
    lab.until(scheduled)
    assert {lab.pod(pod)["spec"]["nodeName"] for pod in pending} == used
