"""The cluster itself: it stays as it is, it stays on this machine, and its nodes can be lost."""

from __future__ import annotations

import subprocess

from tests.cluster import cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import wait
from tests.cluster.settings import NODES


def pids(plane: ControlPlane) -> list[int | None]:
    names = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", *(node.name for node in NODES))
    return [plane.processes.pid(name) for name in names]


def test_up_after_up_changes_nothing(plane: ControlPlane) -> None:
    before = pids(plane)
    assert all(before)
    cluster.up()
    assert pids(plane) == before


def test_no_address_of_the_cluster_leaves_the_machine(plane: ControlPlane) -> None:
    del plane
    for address in ("10.213.0.200", "10.214.9.9", "10.213.255.1"):
        route = subprocess.run(["ip", "route", "get", address], capture_output=True, text=True, check=False)
        assert "via" not in route.stdout, f"{address} would be sent away: {route.stdout}"


def test_a_node_is_lost_and_comes_back(plane: ControlPlane) -> None:
    def ready(name: str) -> str:
        return plane.kubectl("get", "node", name, "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')

    cluster.stop_node("node-b")
    try:
        wait("node-b not ready", lambda: ready("node-b") == "Unknown")
    finally:
        cluster.start_node("node-b")
    wait("node-b ready", lambda: ready("node-b") == "True")
