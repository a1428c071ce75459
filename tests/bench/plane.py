"""What the operator is measured on: etcd, API server and controller manager; no scheduler, no nodes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.process import free_port
from tests.cluster.cluster import binaries
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import wait
from tests.cluster.settings import REPOSITORY

CLAIM = Path(__file__).parent / "claim.yaml"
# The controller manager asks at most 20 times a second by default, and would be the only thing that is measured.
CONTROLLERS = ("--kube-api-qps=500", "--kube-api-burst=1000", "--concurrent-job-syncs=10")
OPERATOR_USER = "llm-operator-under-test"


@contextmanager
def control_plane(*namespaces: str, crds: Path = REPOSITORY / "crds") -> Iterator[ControlPlane]:
    """With our definitions and, in each of the namespaces, the claim that a training's pods would mount."""
    folder = Path(tempfile.mkdtemp(prefix="llm-operator-bench-"))
    plane = ControlPlane(binaries(), folder, port=free_port(), etcd_port=14379, controller_options=CONTROLLERS)
    try:
        plane.start(scheduler=False)
        plane.kubectl("apply", "--server-side", "-f", crds)
        established = ("wait", "--for=condition=Established", "crd", "--all", "--timeout=5s")
        wait("the definitions", lambda: bool(plane.kubectl(*established, check=False)))
        for namespace in namespaces:
            plane.kubectl("create", "namespace", namespace)
            plane.kubectl("apply", "-n", namespace, "-f", CLAIM)
            account = ("get", "serviceaccount", "default", "-n", namespace, "-o", "name")
            wait("the service account", lambda account=account: bool(plane.kubectl(*account, check=False)))  # type: ignore[misc]
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(folder, ignore_errors=True)


def operator_kubeconfig(plane: ControlPlane) -> Path:
    """For the operator's own identity, by which the audit log tells its requests."""
    plane.authority.issue("operator", f"/O=system:masters/CN={OPERATOR_USER}")
    kubeconfig = plane.state / "operator.kubeconfig"
    plane.authority.kubeconfig("operator", plane.server, kubeconfig)
    return kubeconfig
