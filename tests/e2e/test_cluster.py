"""The cluster itself: it stays as it is, it stays on this machine, and its nodes can be lost."""

from __future__ import annotations

import ipaddress
import subprocess

from tests.cluster import cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import wait
from tests.cluster.settings import BRIDGE, NODE_RANGE, NODES, POD_RANGE, SERVICE_RANGE


def pids(plane: ControlPlane) -> list[int | None]:
    names = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", *(node.name for node in NODES))
    return [plane.processes.pid(name) for name in names]


def test_up_after_up_changes_nothing(plane: ControlPlane) -> None:
    before = pids(plane)
    assert all(before)
    cluster.up()
    assert pids(plane) == before


def test_no_address_of_the_cluster_leaves_the_machine(plane: ControlPlane) -> None:
    """Known or not, an address of the cluster's ranges goes to the bridge or nowhere; a node reaches nothing else."""
    del plane
    for cidr in (NODE_RANGE, POD_RANGE, SERVICE_RANGE):
        for address in (ipaddress.ip_network(cidr)[number] for number in (1, 11, 200, -2)):
            route = subprocess.run(["ip", "route", "get", str(address)], capture_output=True, text=True, check=False)
            stays = route.returncode != 0 or f"dev {BRIDGE}" in route.stdout or "dev lo" in route.stdout
            assert stays, f"{address} would be sent away: {route.stdout}"
    for node in NODES:
        outside = subprocess.run(
            ["ip", "-n", node.name, "route", "get", "192.0.2.1"], capture_output=True, text=True, check=False
        )
        assert outside.returncode, f"{node.name} would send to {outside.stdout}"


def test_a_node_is_lost_and_comes_back(plane: ControlPlane) -> None:
    def ready(name: str) -> str:
        return plane.kubectl("get", "node", name, "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')

    cluster.stop_node("node-b")
    try:
        wait("node-b not ready", lambda: ready("node-b") == "Unknown")
    finally:
        cluster.start_node("node-b")
    wait("node-b ready", lambda: ready("node-b") == "True")
