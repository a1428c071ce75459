"""Nodes: real containerd, kubelet and kube-proxy in a tree of namespaces that one signal ends."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import run, wait
from tests.cluster.settings import DNS_IP, HERE, POD_RANGE, REGISTRY, REGISTRY_NAME, SHARED, STATE, Node

CGROUPS = Path("/sys/fs/cgroup")

CONTAINERD = """
version = 3
disabled_plugins = [
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri",
]
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  discard_unpacked_layers = true
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{home}/registry-hosts"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{registry}/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true  # a container without CAP_SYS_RESOURCE may not lower its score
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{binaries}/cni"]
    conf_dir = "{home}/cni"
"""


def start(node: Node, plane: ControlPlane) -> None:
    """Start a node that isn't running; it joins by itself."""
    if plane.processes.pid(node.name):
        return
    write_files(node, plane)
    make_cgroups(node)
    plane.processes.start(
        node.name,
        [
            "nsenter", f"--net=/run/netns/{node.name}",
            "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
            HERE / "node.sh", node.name, node.home, plane.binaries, SHARED,
        ],
    )  # fmt: skip


def stop(node: Node, plane: ControlPlane) -> None:
    """As if its power was cut: every process and mount of the node is gone."""
    plane.processes.stop(node.name, grace=0)
    wait(f"the end of all processes of {node.name}", lambda: not pids(node), 20)


def pids(node: Node) -> set[int]:
    """Processes in the node's control groups."""
    found: set[int] = set()
    for group in groups(node)[:1]:
        for file in group.rglob("cgroup.procs"):
            found |= {int(pid) for pid in file.read_text().split()}
    return found


def controllers() -> list[Path]:
    """Every control group hierarchy (version 1), or the only one (version 2)."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in sorted(CGROUPS.iterdir()) if path.is_dir() and path.name != "unified"]


def groups(node: Node) -> list[Path]:
    """The node's group in every hierarchy; containerd makes one in version 2's too where both are mounted."""
    below = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir())]
    preferred = sorted(below, key=lambda path: path.name != "pids")
    return [path / node.cgroup for path in preferred if (path / node.cgroup).exists()]


def make_cgroups(node: Node) -> None:
    for controller in controllers():
        group = controller / node.cgroup
        group.mkdir(exist_ok=True)
        for key in ("cpuset.cpus", "cpuset.mems"):  # version 1 leaves both empty, and then nothing may start there
            if (controller / key).exists() and not (group / key).read_text().strip():
                (group / key).write_text((controller / key).read_text())


def remove_cgroups(node: Node) -> None:
    for group in groups(node):
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()


def write_files(node: Node, plane: ControlPlane) -> None:
    home = node.home
    for folder in ("cni", "registry-hosts", f"registry-hosts/{REGISTRY_NAME}"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    plane.authority.issue(
        node.name, f"/O=system:nodes/CN=system:node:{node.name}", f"IP:{node.address},DNS:{node.name}"
    )
    plane.authority.kubeconfig(node.name, plane.server, home / "kubeconfig")
    (home / "address").write_text(node.address)
    (home / "resolv.conf").write_text("")
    (home / "registry-hosts" / REGISTRY_NAME / "hosts.toml").write_text(f'server = "http://{REGISTRY}"\n')
    (home / "containerd.toml").write_text(CONTAINERD.format(home=home, registry=REGISTRY_NAME, binaries=plane.binaries))
    (home / "cni" / "10-bridge.conflist").write_text(json.dumps(cni(node)))
    (home / "kubelet.yaml").write_text(json.dumps(kubelet(node, plane)))
    (home / "kube-proxy.yaml").write_text(json.dumps(kube_proxy(node, plane)))


def cni(node: Node) -> dict[str, object]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": node.pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}


def kubelet(node: Node, plane: ControlPlane) -> dict[str, object]:
    pki = plane.authority.folder
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "failSwapOn": False,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [DNS_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": str(node.home / "resolv.conf"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / f"{node.name}.crt"),
        "tlsPrivateKeyFile": str(pki / f"{node.name}.key"),
        "nodeStatusUpdateFrequency": "2s",
        "nodeLeaseDurationSeconds": 8,
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        "enforceNodeAllocatable": ["pods"],
    }


def kube_proxy(node: Node, plane: ControlPlane) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(plane.state / "kube-proxy.kubeconfig")},
        "clusterCIDR": POD_RANGE,
        "detectLocalMode": "ClusterCIDR",
        "hostnameOverride": node.name,
        "bindAddress": node.address,
        "healthzBindAddress": "",
        "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def enter(node: Node, plane: ControlPlane, *command: object) -> str:
    """Output of a command in the node's namespaces."""
    outer = plane.processes.pid(node.name)
    inner = run("pgrep", "-P", outer).stdout.split()[0] if outer else ""
    return run("nsenter", "-t", inner, "--mount", "--net", "--uts", "--pid", *command).stdout


def unmount_leftovers() -> None:
    """Mounts below the state folder; a dead node leaves none, so this is for a broken start only."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{STATE}/")), key=len, reverse=True):
        run("umount", "-l", mount, check=False)
