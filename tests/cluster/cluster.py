"""The two-node cluster as a whole: up, down, status, images."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tests.cluster import binaries as programs
from tests.cluster import build, images, network, nodes
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import run, wait
from tests.cluster.settings import (
    CACHE,
    HERE,
    HOST_IP,
    NODES,
    REGISTRY,
    REGISTRY_NAME,
    REGISTRY_PORT,
    SERVICE_RANGE,
    STATE,
    node,
)  # fmt: skip

# The kubelet and kube-proxy change these for the whole machine.
SYSCTLS = (
    "vm.overcommit_memory",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)


@cache
def binaries() -> Path:
    """The folder of the cluster's binaries, built on first use."""
    build.ensure("binaries")
    return programs.folder()


def control_plane() -> ControlPlane:
    return ControlPlane(binaries(), STATE, HOST_IP, 6443, 12379, SERVICE_RANGE)


def up() -> None:
    """Both nodes Ready and DNS answering. Up after up changes nothing; what a killed run has left goes first."""
    began = time.monotonic()
    plane = control_plane()
    if not is_up():
        down()
    for folder in ("shared/models", "shared/corpus"):
        (STATE / folder).mkdir(parents=True, exist_ok=True)
        (STATE / folder).chmod(0o777)
    save_sysctls()
    network.create()
    start_registry(plane)
    push_parts()
    plane.start()
    print(f"API server ready after {time.monotonic() - began:.1f} s", flush=True)
    for one in NODES:
        nodes.start(one, plane)
    wait("both nodes Ready", lambda: all(is_ready(plane, one.name) for one in NODES))
    for manifest in ("coredns.yaml", "storage.yaml"):
        plane.kubectl("apply", "--server-side", "-f", HERE / manifest)
    wait("DNS", lambda: is_rolled_out(plane, "coredns"))
    print(
        f"nodes and DNS ready after {time.monotonic() - began:.1f} s\nexport KUBECONFIG={plane.kubeconfig}", flush=True
    )


def down() -> None:
    """Leaves no process, namespace, mount, interface, route or control group."""
    if not STATE.exists():
        return
    plane = control_plane()
    for one in NODES:
        nodes.stop(one, plane)
    plane.stop()
    plane.processes.stop("registry")
    nodes.unmount_leftovers()
    for one in NODES:
        nodes.remove_cgroups(one)
    network.remove()
    restore_sysctls()
    shutil.rmtree(STATE)


def status() -> None:
    plane = control_plane()
    for name in (
        "registry",
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        *(n.name for n in NODES),
    ):
        print(f"{name:28} {plane.processes.pid(name) or '-':>8}")
    print(plane.kubectl("get", "nodes,pods", "-A", "-o", "wide", check=False))


def is_up() -> bool:
    return (STATE / "admin.kubeconfig").exists() and control_plane().processes.pid("kube-apiserver") is not None


def is_ready(plane: ControlPlane, name: str) -> bool:
    found = plane.kubectl("get", "node", name, "--ignore-not-found", "-o", "json", check=False)
    conditions = json.loads(found)["status"].get("conditions", []) if found else []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def is_rolled_out(plane: ControlPlane, deployment: str) -> bool:
    asked = ("-n", "kube-system", "rollout", "status", f"deployment/{deployment}", "--watch=false")
    return "successfully rolled out" in plane.kubectl(*asked, check=False)


def stop_node(name: str) -> None:
    nodes.stop(node(name), control_plane())


def start_node(name: str) -> None:
    nodes.start(node(name), control_plane())


def start_registry(plane: ControlPlane) -> None:
    """A local registry; its blobs are in the cache, so that a large image is pushed once."""
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(CACHE / "registry")}, "delete": {"enabled": True}},
        "http": {"addr": REGISTRY},
        "log": {"level": "warn"},
    }
    (STATE / "registry.yaml").write_text(json.dumps(config))
    plane.refuse_taken_port("registry", HOST_IP, REGISTRY_PORT)
    plane.processes.start("registry", [plane.binaries / "registry", "serve", STATE / "registry.yaml"])
    wait("the registry", lambda: run("curl", "-sf", f"http://{REGISTRY}/v2/", check=False).returncode == 0)


def push_parts() -> None:
    """The two images that the cluster itself needs: one static program each."""
    names = {program: f"localhost/{program}:1" for program in ("pause", "coredns")}
    for program, local in names.items():
        if not is_pushed(local):
            images.build_static(binaries() / program, local)
    push(names.values())


def push_images() -> dict[str, str]:
    """Build and push ours; the names under which pods pull them, by image."""
    build.ensure("images")
    names = {name: images.tagged(name) for name in images.IMAGES}
    push(names.values())
    return {name: local.replace("localhost", REGISTRY_NAME, 1) for name, local in names.items()}


def push(names: Iterable[str]) -> None:
    """Push local images that the cluster's registry lacks."""
    images.push({name: name.replace("localhost", REGISTRY, 1) for name in names if not is_pushed(name)}, insecure=True)


def is_pushed(local: str) -> bool:
    repository, tag = local.removeprefix("localhost/").split(":")
    return run("curl", "-sf", f"http://{REGISTRY}/v2/{repository}/manifests/{tag}", check=False).returncode == 0


def save_sysctls() -> None:
    file = STATE / "sysctls"
    if not file.exists():
        file.write_text("".join(f"{key}={run('sysctl', '-n', key).stdout.strip()}\n" for key in SYSCTLS))


def restore_sysctls() -> None:
    """Nothing, where a `down` that was killed has done it."""
    file = STATE / "sysctls"
    for line in file.read_text().splitlines() if file.exists() else ():
        run("sysctl", "-qw", line, check=False)
