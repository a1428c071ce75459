"""The programs of the test cluster, built from the Go module proxy once per version; modules/ pins the versions."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

from tests.cluster.settings import CACHE, HERE
from tests.cluster.steps import Step, in_order

MODULES = HERE / "modules"
# Folder in modules/ → its programs, each with its package. One that downloads fast is first: it compiles while the
# others download.
PROGRAMS = {
    "containerd": {
        "containerd": "github.com/containerd/containerd/v2/cmd/containerd",
        "containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    },
    "kubernetes": {
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
        "kubelet": "k8s.io/kubernetes/cmd/kubelet",
        "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
        "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    },
    "etcd": {"etcd": "go.etcd.io/etcd/server/v3"},
    "clients": {"coredns": "./coredns", "helm": "helm.sh/helm/v3/cmd/helm"},  # both of Kubernetes' client library
    "registry": {"registry": "."},
    "cni": {
        "cni/host-local": "github.com/containernetworking/plugins/plugins/ipam/host-local",
        "cni/bridge": "github.com/containernetworking/plugins/plugins/main/bridge",
        "cni/loopback": "github.com/containernetworking/plugins/plugins/main/loopback",
    },
    "pause": {"pause": "."},
}
LINKER = "-s -w"  # nothing for a debugger; so the compiler need not make it either
FLAGS = ("-trimpath", "-gcflags=all=-dwarf=false", "-tags=no_btrfs,no_zfs,no_devmapper,no_tracing")  # containerd's tags
# Both caches grow to 16 GB in all and go when the programs are there. An interrupted build goes on with them.
WORK = CACHE / "go"
# The compiler's own work folder is there too: it would stay behind where a step is ended.
FINISH = """
touch "$1/complete"
rm -rf "$2"
find "$(dirname "$1")" -maxdepth 1 -name 'cluster-*' ! -path "$1" -mtime +7 -exec rm -rf {} +
"""


def key() -> str:
    """Twelve hex digits over all that decides what is built."""
    digest = hashlib.sha256(repr((PROGRAMS, FLAGS, LINKER)).encode())
    for file in sorted(file for file in MODULES.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(MODULES)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def folder() -> Path:
    return CACHE / f"cluster-{key()}"


def linker_flags(module: str) -> str:
    if module != "kubernetes":
        return LINKER
    # Without gitVersion the API server calls itself v0.0.0-master, and helm refuses it.
    pinned = re.search(r"k8s\.io/kubernetes (v(\d+)\.(\d+)\S+)", (MODULES / module / "go.mod").read_text())
    if pinned is None:
        raise RuntimeError("modules/kubernetes/go.mod pins no k8s.io/kubernetes")
    values = dict(zip(("gitVersion", "gitMajor", "gitMinor"), pinned.groups(), strict=True))
    values |= {"gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join([LINKER, *(f"-X {package}.{key}={value}" for package in packages for key, value in values.items())])


def missing() -> list[Step]:
    """What is left to do: each module's downloads, beside them each program, and away with Go's caches."""
    programs = folder()
    finish = Step("remove Go's caches", ["bash", "-euc", FINISH, "finish", programs, WORK])
    if (programs / "complete").exists():
        return [finish] if WORK.exists() else []
    if shutil.which("go") is None:
        raise RuntimeError("Go 1.26 or newer is needed to build the test cluster: install it and put it on PATH")
    WORK.mkdir(parents=True, exist_ok=True)
    downloads = [download(module) for module in PROGRAMS]
    builds = [build(module, program) for module, found in PROGRAMS.items() for program in found]
    return [*in_order(downloads), *in_order([*builds, finish])]


def environment() -> dict[str, str]:
    return {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-modcacherw",
        "GOCACHE": os.environ.get("CLUSTER_GOCACHE", str(WORK / "build")),
        "GOMODCACHE": os.environ.get("CLUSTER_GOMODCACHE", str(WORK / "modules")),
        "GOTMPDIR": str(WORK),
    }


def download(module: str) -> Step:
    """Only the modules whose packages the programs import."""
    command = ["go", "list", *FLAGS, "-deps", *PROGRAMS[module].values()]
    return Step(f"modules of {module}", command, folder=MODULES / module, environment=environment())


def build(module: str, program: str) -> Step:
    command = ["go", "build", "-v", *FLAGS, "-ldflags", linker_flags(module),
               "-o", folder() / program, PROGRAMS[module][program]]  # fmt: skip
    return Step(program, command, (f"modules of {module}",), MODULES / module, environment())
