"""A bridge, one network namespace a node, and routes that keep every cluster address on this machine."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.processes import run
from tests.cluster.settings import BRIDGE, HOST_IP, NODE_RANGE, NODES, POD_RANGE, SERVICE_RANGE, Node

LAST_RESORT = "4278198272"  # a metric behind every other route's


def ip(*arguments: object, check: bool = True) -> str:
    return run("ip", *arguments, check=check).stdout


def create() -> None:
    for cidr in (NODE_RANGE, POD_RANGE, SERVICE_RANGE):  # first of all: what isn't ours yet goes nowhere
        ip("route", "replace", "unreachable", cidr, "metric", LAST_RESORT)
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", f"{HOST_IP}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
    ip("route", "replace", SERVICE_RANGE, "via", NODES[0].address)  # its kube-proxy answers for the services
    for node in NODES:
        create_node(node)
        ip("route", "replace", node.pods, "via", node.address)


def create_node(node: Node) -> None:
    if Path(f"/run/netns/{node.name}").exists():
        return
    ip("netns", "add", node.name)
    ip("link", "add", f"{node.name}-h", "type", "veth", "peer", "name", "eth0", "netns", node.name)
    ip("link", "set", f"{node.name}-h", "master", BRIDGE, "up")
    ip("-n", node.name, "link", "set", "lo", "up")
    ip("-n", node.name, "addr", "add", f"{node.address}/24", "dev", "eth0")
    ip("-n", node.name, "link", "set", "eth0", "up")
    # kube-proxy needs a route for service addresses before it rewrites them; the host hands none of them on
    ip("-n", node.name, "route", "add", "unreachable", "default", "metric", LAST_RESORT)
    ip("-n", node.name, "route", "add", SERVICE_RANGE, "via", HOST_IP)
    for other in NODES:
        if other is not node:
            ip("-n", node.name, "route", "add", other.pods, "via", other.address)
    run(
        "nsenter", f"--net=/run/netns/{node.name}",
        "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0",
    )  # fmt: skip


def remove() -> None:
    for node in NODES:
        if Path(f"/run/netns/{node.name}").exists():
            ip("netns", "del", node.name)
        ip("link", "del", f"{node.name}-h", check=False)
    ip("link", "del", BRIDGE, check=False)
    for cidr in (NODE_RANGE, POD_RANGE, SERVICE_RANGE):
        ip("route", "del", "unreachable", cidr, "metric", LAST_RESORT, check=False)
