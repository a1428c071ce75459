"""A node whose network is its own, with pods that are network namespaces, and an engine that enforces their policies.

python -m tests.api.policed KUBE_ROUTER, in new network, mount and PID namespaces: an API server on loopback knows of
the pods; standard input has policies, pods and questions as JSON, the answers go to standard output. See
test_enforcement.py.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.cluster import binaries
from tests.cluster.control_plane import ControlPlane
from tests.cluster.network import ip
from tests.cluster.processes import run

NODE, GATEWAY = "node-a", "10.217.0.1"  # the addresses of another network may be the same
ROUNDS = 60  # until the engine has read all
AT_ONCE = 16  # questions
LISTEN = """
import socket, sys, time
heard = [socket.create_server(("0.0.0.0", int(port)), backlog=50) for port in sys.argv[1:]]
time.sleep(1e6)
"""
CONNECT = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
"""
Question = tuple[str, str, int]


class World:
    def __init__(self, plane: ControlPlane, ports: list[int]) -> None:
        self.plane = plane
        self.ports = ports
        self.addresses: dict[str, str] = {}
        self._hosts = itertools.count(10)

    def apply(self, *manifests: dict[str, Any]) -> None:
        file = self.plane.state / "manifests.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))
        self.plane.kubectl("apply", "--server-side", "-f", file)

    def say(self, kind: str, name: str, status: dict[str, Any], *namespace: str) -> None:
        """As a kubelet does."""
        patch = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
        self.plane.kubectl(*namespace, "patch", kind, name, *patch)

    def start(self, engine: str) -> None:
        log = (self.plane.state / "engine.log").open("w")
        options = [
            "--run-firewall=true", "--run-router=false", "--run-service-proxy=false", "--health-port=0",
            f"--kubeconfig={self.plane.kubeconfig}", f"--hostname-override={NODE}",
            f"--service-cluster-ip-range={self.plane.service_range}",
        ]  # fmt: skip
        subprocess.Popen([engine, *options], stdout=log, stderr=log)

    def add(self, namespace: str, name: str, labels: dict[str, str]) -> None:
        """A pod that listens on all ports."""
        host = next(self._hosts)
        address = self.addresses[name] = f"10.217.0.{host}"
        ip("netns", "add", name)
        ip("link", "add", f"pod{host}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"pod{host}", "master", "cni0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        inside = ["ip", "netns", "exec", name, sys.executable, "-c", LISTEN]
        subprocess.Popen([*inside, *map(str, self.ports)], stdout=subprocess.DEVNULL)
        container = {"name": "main", "image": "main"}
        self.apply({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"nodeName": NODE, "automountServiceAccountToken": False, "containers": [container]},
        })  # fmt: skip
        told = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": GATEWAY}
        self.say("pod", name, told, "-n", namespace)

    def answers(self, questions: Sequence[Question]) -> list[bool]:
        """Beside each other, as each that is kept out waits for its time-out."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(self.reaches, questions))

    def reaches(self, question: Question) -> bool:
        """From a pod, or from the node as its kubelet does, to a port of a pod."""
        source, target, port = question
        inside = () if source == NODE else ("ip", "netns", "exec", source)
        asked = (*inside, sys.executable, "-c", CONNECT, self.addresses[target], port)
        return run(*asked, check=False).returncode == 0


@contextmanager
def world(ports: list[int]) -> Iterator[World]:
    ip("link", "set", "lo", "up")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")  # names of network namespaces, and the lock of iptables
    ip("link", "add", "cni0", "type", "bridge")
    ip("addr", "add", f"{GATEWAY}/24", "dev", "cni0")
    ip("link", "set", "cni0", "up")
    run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1")
    with tempfile.TemporaryDirectory() as state:
        plane = ControlPlane(binaries(), Path(state))
        plane.start(controllers=False, scheduler=False)
        try:
            yield World(plane, ports)
        finally:
            plane.stop()


def main(engine: str) -> None:
    given = json.load(sys.stdin)
    with world(given["ports"]) as made:
        made.apply(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "spec": {"podCIDR": "10.217.0.0/24"}}
        )
        made.say("node", NODE, {"addresses": [{"type": "InternalIP", "address": GATEWAY}]})
        for name in sorted({namespace for namespace, _, _ in given["pods"]}):
            made.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            account = {"name": "default", "namespace": name}  # no controller makes it here
            made.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        made.apply(*given["policies"])
        for pod in given["pods"]:
            made.add(*pod)
        questions: list[Question] = [(source, target, port) for source, target, port, _ in given["questions"]]
        wanted = [reached for *_, reached in given["questions"]]
        before = answers = [True] * len(questions)
        for _ in range(ROUNDS):  # until each listens
            before = made.answers(questions)
            if all(before):
                break
            time.sleep(0.5)
        made.start(engine)
        for _ in range(ROUNDS):
            answers = made.answers(questions)
            if answers == wanted:
                break
            time.sleep(0.5)
        log = (made.plane.state / "engine.log").read_text(errors="replace")[-3000:]
        print(json.dumps({"before": before, "answers": answers, "log": log}))


if __name__ == "__main__":
    main(sys.argv[1])
