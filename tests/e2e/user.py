"""A user of the cluster: a namespace with claims, manifests applied, statuses waited for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.kubectl import Kubectl

from tests.cluster.control_plane import ControlPlane
from tests.cluster.settings import SHARED

Manifest = dict[str, Any]
Seen = Callable[[str, object], None]  # pytest's record_property: goes into the table at the end
CLAIMS = ("models", "corpus")
POLL_SECONDS = 1.5  # kubectl takes a good share of a CPU core that the pods need


@dataclass(frozen=True)
class User:
    plane: ControlPlane
    namespace: str

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.plane.binaries / "kubectl", self.plane.kubeconfig, self.namespace)

    def move_in(self) -> None:
        """A namespace under the restricted standard, with a claim for models and one for text."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.kubectl.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}}
        )
        for claim in CLAIMS:
            folder = self.folder(claim)
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
            self.kubectl.apply(self._volume(claim), self._claim(claim))

    def move_out(self) -> None:
        """What is left ends by itself, beside the tests of the next one."""
        self.kubectl.run("delete", "namespace", self.namespace, "--wait=false", check=False)
        for claim in CLAIMS:
            self.kubectl.run("delete", "pv", f"{self.namespace}-{claim}", "--wait=false", check=False)

    def folder(self, claim: str) -> Path:
        """A claim's content, on this machine."""
        return SHARED / self.namespace / claim

    def _volume(self, claim: str) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{self.namespace}-{claim}"},
            "spec": {
                "capacity": {"storage": "10Gi"},
                "accessModes": ["ReadWriteMany"],
                "storageClassName": self.namespace,
                "claimRef": {"namespace": self.namespace, "name": claim},
                "hostPath": {"path": f"/mnt/shared/{self.namespace}/{claim}", "type": "Directory"},
            },
        }

    def _claim(self, claim: str) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": self.namespace},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": self.namespace,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }

    def apply(self, kind: str, name: str, spec: Manifest) -> None:
        metadata = {"name": name, "namespace": self.namespace}
        self.kubectl.apply({"apiVersion": "llm-operator.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})

    def status(self, kind: str, name: str) -> Manifest:
        found: Manifest = (self.kubectl.get(kind, name) or {}).get("status") or {}
        return found

    def until(
        self, what: str, kind: str, name: str, holds: Callable[[Manifest], object], seconds: float = 300
    ) -> Manifest:
        """The status once it holds; a failure shows the last one."""
        deadline = time.monotonic() + seconds
        while True:
            status = self.status(kind, name)
            if status and holds(status):
                return status
            if time.monotonic() > deadline:
                shown = json.dumps(status, indent=1)
                raise AssertionError(f"{kind} {name}: {what}: not within {seconds:.0f} s; its status is {shown}")
            time.sleep(POLL_SECONDS)


def stage(status: Manifest, name: str) -> Manifest:
    return next((stage for stage in status.get("stages", ()) if stage["name"] == name), {})


def condition(status: Manifest, kind: str) -> Manifest:
    return next((condition for condition in status.get("conditions", ()) if condition["type"] == kind), {})


def step(status: Manifest, name: str) -> int:
    return int((stage(status, name).get("progress") or {}).get("step", 0))
