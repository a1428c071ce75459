"""A real etcd, API server and controller manager on loopback, with our CRDs; no nodes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.cluster import binaries
from tests.cluster.control_plane import ControlPlane, free_ports
from tests.cluster.processes import wait
from tests.cluster.settings import REPOSITORY

# Every 20 s pods that end on no node are said to have failed; the tests' pods have no node, and are said to end slowly.
CONTROLLERS = ("--controllers=*,-pod-garbage-collector-controller",)


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Has kubeconfig, server, audit_log and kubectl(*arguments)."""
    state = tmp_path_factory.mktemp("control-plane")
    # free ones, so that two checkouts can run their tests at the same time
    plane = ControlPlane(binaries(), state, port=free_ports(1), etcd_port=free_ports(2), controller_options=CONTROLLERS)
    with running(plane):
        yield plane


@contextmanager
def running(plane: ControlPlane) -> Iterator[None]:
    """With our kinds; its state is deleted in the end."""
    plane.start(scheduler=False)
    try:
        plane.kubectl("apply", "--server-side", "-f", REPOSITORY / "crds")
        wait("the CRDs", lambda: established(plane))
        yield
    finally:
        plane.stop()
        shutil.rmtree(plane.state, ignore_errors=True)


def established(plane: ControlPlane) -> bool:
    """kubectl fails on a CRD that has no conditions yet."""
    told = plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=1s", check=False)
    return told.count("condition met") == len(list((REPOSITORY / "crds").iterdir()))
