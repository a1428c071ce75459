"""The operator as users run it, on servings. There are no nodes: the test says of the pods what a kubelet would.

The Deployment controller, the disruption controller and evictions are the real ones.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane

Found = dict[str, Any]
CLAIM = {"accessModes": ["ReadWriteMany"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}}
CHILD = "chat-serving"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Lab:
    plane: ControlPlane
    namespace: str
    log: Path

    def kubectl(self, *arguments: object, check: bool = True) -> str:
        return self.plane.kubectl("-n", self.namespace, *arguments, check=check)

    def apply(self, manifest: Found) -> None:
        file = self.plane.state / f"{self.namespace}-{manifest['kind']}-{manifest['metadata']['name']}.json"
        file.write_text(json.dumps(manifest))
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", file)

    def serve(self, spec: Found) -> None:
        kind = {"apiVersion": "llm-operator.io/v1alpha1", "kind": "LLMServing", "metadata": {"name": "chat"}}
        self.apply({**kind, "spec": spec})

    def get(self, kind: str, name: str = CHILD) -> Found:
        """Empty if it isn't there."""
        text = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found", "--show-managed-fields")
        found: Found = json.loads(text) if text.strip() else {}
        return found

    def patch(self, kind: str, name: str, patch: Found, *arguments: str) -> None:
        self.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(patch), *arguments)

    def status(self) -> Found:
        found: Found = self.get("llmserving", "chat").get("status", {})
        return found

    def condition(self, kind: str) -> Found:
        return next((one for one in self.status().get("conditions", []) if one["type"] == kind), {})

    def told(self, reason: str) -> str:
        """The events of a reason, which stay where a condition may have passed."""
        query = ("--field-selector", f"reason={reason}", "-o", "jsonpath={.items[*].message}")
        return self.kubectl("get", "events", *query)

    def pods(self) -> list[Found]:
        """Those that nobody deletes, by age."""
        items = json.loads(self.kubectl("get", "pods", "-o", "json"))["items"]
        alive = [item for item in items if "deletionTimestamp" not in item["metadata"]]
        return sorted(alive, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def args(self) -> list[str]:
        """Of the Deployment's container."""
        template = self.get("deployment").get("spec", {}).get("template", {})
        found: list[str] = template.get("spec", {}).get("containers", [{}])[0].get("args", [])
        return found

    def run_pods(self, *, ready: bool = True) -> None:
        """Lets every pod run that does not yet, as a kubelet would."""
        for pod in self.pods():
            told = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
            if told.get("Ready") != str(ready):
                self.run_pod(pod, ready=ready)

    def run_pod(self, pod: Found, *, ready: bool = True) -> None:
        now, state = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), str(ready)
        conditions = [
            {"type": kind, "status": status, "lastTransitionTime": now}
            for kind, status in (("PodScheduled", "True"), ("ContainersReady", state), ("Ready", state))
        ]
        container = {"name": "vllm", "image": "vllm:1", "imageID": "", "ready": ready, "restartCount": 0,
                     "state": {"running": {"startedAt": now}}}  # fmt: skip
        self.tell(pod, {"phase": "Running", "conditions": conditions, "containerStatuses": [container]})

    def find_no_room(self, pod: Found) -> None:
        told = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}  # fmt: skip
        self.tell(pod, {"conditions": [told]})

    def tell(self, pod: Found, status: Found) -> None:
        """As a kubelet does: of a pod that a rollout has deleted since it was listed there is nothing to tell."""
        words = json.dumps({"status": status})
        name = pod["metadata"]["name"]
        try:
            self.kubectl("patch", "pod", name, "--type=merge", "-p", words, "--subresource=status")
        except RuntimeError as error:
            if "(NotFound)" not in str(error):
                raise

    def until(self, true: Callable[[], object]) -> None:
        """pytest's time limit ends a wait for what never comes."""
        while not true():
            time.sleep(0.1)

    def until_ready(self) -> None:
        """Every pod that comes runs, until the serving has what it wants."""
        while self.status().get("phase") != "Ready":
            self.run_pods()
            time.sleep(0.1)


@pytest.fixture
def lab(api_server: ControlPlane, tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(api_server, f"serving-{next(_numbers)}", tmp_path / "operator.log")
    api_server.kubectl("create", "namespace", lab.namespace)
    for claim in ("models", "kernels"):
        lab.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim}, "spec": CLAIM})
    kubeconfig = tmp_path / "operator.kubeconfig"
    user = f"operator-{lab.namespace}"
    api_server.authority.issue(user, f"/O=system:masters/CN={user}")
    api_server.authority.kubeconfig(user, api_server.server, kubeconfig)
    environment = os.environ | {
        "KUBECONFIG": str(kubeconfig),
        "NAMESPACES": lab.namespace,
        "POD_NAMESPACE": lab.namespace,
        "SERVING_IMAGE": "vllm:1",
        "SURGE_TIMEOUT_SECONDS": "1",
        "ROLLOUT_INTERVAL_SECONDS": "0",
        "NETWORK_POLICIES": '{"enabled": true}',
        "METRICS_PORT": "0",
        "PROBE_PORT": "0",
    }
    with lab.log.open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "llm_operator"], env=environment, stdout=log, stderr=log)
        try:
            yield lab
        finally:
            process.terminate()
            process.wait()
