"""The operator as users run it, in a namespace of its own.

There are no nodes: the test says of the pods what a kubelet would. Everything else is real: the API server, the Job
controller, the garbage collector.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.protocol import Progress, Result, Termination
from tests.cluster.control_plane import ControlPlane
from tests.specs import TRAINING

Found = dict[str, Any]
NAME = "bilingual"
PULL_SECRET = "mirror"
CLAIM = {"accessModes": ["ReadWriteMany"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}}
_numbers = itertools.count(1)


HELD = "example.com/kubelet"


def container_status(name: str, state: Found, **more: Any) -> Found:
    status = {"name": name, "image": f"{name}:1", "imageID": "", "restartCount": 0, "ready": "running" in state}
    return {**status, "state": state, **more}


@dataclass(frozen=True)
class Lab:
    plane: ControlPlane
    namespace: str
    operators: list[subprocess.Popen[bytes]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def start_operator(self) -> None:
        log = (self.plane.state / f"{self.namespace}-operator-{len(self.operators)}.log").open("w")
        command = [sys.executable, "-m", "llm_operator"]
        self.operators.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))
        log.close()

    def stop_operator(self) -> None:
        """The one that runs, as a roll-out does."""
        self.operators[-1].terminate()
        self.operators[-1].wait()

    @property
    def operator(self) -> str:
        """The operator's user."""
        return f"operator-{self.namespace}"

    def kubectl(self, *arguments: object) -> str:
        return self.plane.kubectl("-n", self.namespace, *arguments)

    def apply(self, version: str, kind: str, name: str, spec: Found) -> None:
        manifest = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}
        file = self.plane.state / f"{self.namespace}-{kind}-{name}.json"
        file.write_text(json.dumps(manifest))
        self.kubectl("apply", "--server-side", "-f", file)

    def training(self) -> Found:
        found: Found = json.loads(self.kubectl("get", "llmtraining", NAME, "-o", "json"))
        return found

    def stage(self, name: str) -> Found:
        stages = self.training().get("status", {}).get("stages", [])
        return next((stage for stage in stages if stage["name"] == name), {"attempts": [], "state": ""})

    def phase(self) -> str:
        return str(self.training().get("status", {}).get("phase", ""))

    def set_spec(self, spec: Found) -> None:
        self.kubectl("patch", "llmtraining", NAME, "--type=merge", "-p", json.dumps({"spec": spec}))

    def jobs(self) -> list[str]:
        return self.kubectl("get", "jobs", "-o", "jsonpath={.items[*].metadata.name}").split()

    def pods(self, job: str) -> list[str]:
        """Those of a Job that nobody deletes, by rank."""
        items = json.loads(self.kubectl("get", "pods", "-l", f"batch.kubernetes.io/job-name={job}", "-o", "json"))
        alive = [item["metadata"] for item in items["items"] if "deletionTimestamp" not in item["metadata"]]
        return [pod["name"] for pod in sorted(alive, key=lambda pod: pod["name"])]

    def start_pods(self, stage: str, attempt: int = 1, nodes: int | None = None) -> list[str]:
        """Waits for the pods of an attempt, and lets them run."""
        nodes = nodes or (1 if stage == "data" else 2)
        self.until(lambda: len(self.stage(stage)["attempts"]) >= attempt)
        job = self.stage(stage)["attempts"][-1]["job"]
        self.until(lambda: len(self.pods(job)) == nodes)
        pods = self.pods(job)
        for pod in pods:
            self.set_container(pod, "Running", {"running": {}})
        self.until(lambda: self.phase() == "Running")
        return pods

    def end_pod(self, pod: str, code: int, word: Termination) -> None:
        terminated = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "message": word.model_dump_json(by_alias=True, exclude_none=True),
            "finishedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        self.set_container(pod, "Failed" if code else "Succeeded", {"terminated": terminated})

    def succeed(self, stage: str, pods: list[str], attempt: int = 1) -> None:
        digest = f"sha256:{hashlib.sha256(stage.encode()).hexdigest()}"
        where = "data" if stage == "data" else f"stages/{stage}/results/step-00000100"
        uri = f"{self.training()['status']['runUri']}/{where}"
        result = Result(uri=uri, digest=digest, kind="data" if stage == "data" else "model")
        last = Progress(stage=stage, attempt=attempt, phase="Done", result=result, heartbeat=time.time())
        for rank, pod in enumerate(pods):
            self.end_pod(pod, 0, Termination(reason="Succeeded", rank=rank, progress=None if rank else last))
        self.until(lambda: self.stage(stage)["state"] == "Succeeded")

    def set_container(self, pod: str, phase: str, state: Found) -> None:
        self.set_pod(pod, {"phase": phase, "containerStatuses": [container_status("trainer", state)]})

    def set_pod(self, pod: str, status: Found) -> None:
        """Its status, as a kubelet or the scheduler writes it."""
        patch = json.dumps({"status": status})
        self.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", patch)

    def hold(self, *pods: str) -> None:
        """As a kubelet does: a pod that is deleted stays until ``let_go``, and terminates meanwhile."""
        for pod in pods:
            self.kubectl("patch", "pod", pod, "-p", json.dumps({"metadata": {"finalizers": [HELD]}}))

    def let_go(self, *pods: str) -> None:
        """By a patch of this finalizer alone, as Kubernetes takes its own away meanwhile."""
        for pod in pods:
            patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": [HELD]}}
            self.kubectl("patch", "pod", pod, "-p", json.dumps(patch))

    def pod(self, name: str) -> Found:
        found: Found = json.loads(self.kubectl("get", "pod", name, "-o", "json"))
        return found

    def condition(self, kind: str) -> Found:
        conditions = self.training().get("status", {}).get("conditions", ())
        nothing = {"status": "", "reason": "", "message": ""}
        return next((condition for condition in conditions if condition["type"] == kind), nothing)

    def until(self, true: Callable[[], bool]) -> None:
        """pytest's time limit ends a wait for what never comes."""
        while not true():
            time.sleep(0.1)


@pytest.fixture
def settings() -> dict[str, str]:
    """Variables of the operator, for a module to add to."""
    return {}


@pytest.fixture
def lab(api_server: ControlPlane, tmp_path: Path, settings: dict[str, str]) -> Iterator[Lab]:
    lab = Lab(api_server, f"training-{next(_numbers)}", environment=dict(os.environ))
    api_server.kubectl("create", "namespace", lab.namespace)
    for claim in ("models", "corpus"):
        lab.apply("v1", "PersistentVolumeClaim", claim, CLAIM)
    kubeconfig = tmp_path / "operator.kubeconfig"
    api_server.authority.issue(lab.operator, f"/O=system:masters/CN={lab.operator}")
    api_server.authority.kubeconfig(lab.operator, api_server.server, kubeconfig)
    lab.environment.update({
        "KUBECONFIG": str(kubeconfig),
        "NAMESPACES": lab.namespace,
        "POD_NAMESPACE": lab.namespace,
        "PROGRESS_INTERVAL_SECONDS": "1",
        "CHILD_IMAGE_PULL_SECRETS": PULL_SECRET,
        "METRICS_PORT": "0",
        "PROBE_PORT": "0",
        **settings,
    })  # fmt: skip
    lab.start_operator()
    try:
        yield lab
    finally:
        lab.stop_operator()


@pytest.fixture
def training(lab: Lab) -> None:
    lab.apply("llm-operator.io/v1alpha1", "LLMTraining", NAME, TRAINING)
