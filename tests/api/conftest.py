"""A real etcd, API server and controller manager on loopback, with our CRDs; no nodes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import binaries
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import wait
from tests.cluster.settings import REPOSITORY


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Has kubeconfig, server, audit_log and kubectl(*arguments)."""
    state = tmp_path_factory.mktemp("control-plane")
    plane = ControlPlane(binaries(), state, port=16443, etcd_port=12479)
    plane.start(scheduler=False)
    try:
        plane.kubectl("apply", "--server-side", "-f", REPOSITORY / "crds")
        wait("the CRDs", lambda: established(plane))
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(state, ignore_errors=True)


def established(plane: ControlPlane) -> bool:
    """kubectl fails on a CRD that has no conditions yet."""
    told = plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=1s", check=False)
    return told.count("condition met") == len(list((REPOSITORY / "crds").iterdir()))
