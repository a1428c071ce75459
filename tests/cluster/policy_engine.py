"""kube-router, which enforces NetworkPolicies: built for the second level of tests alone."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tests.cluster.settings import CACHE, HERE
from tests.cluster.steps import Step, in_order

MODULE = HERE / "policy_engine"  # pins its version; not in modules/, or each change would build the whole cluster anew
PACKAGE = "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"
WORK = CACHE / "go-kube-router"
FINISH = """
mv "$1/kube-router" "$2"
rm -rf "$1"
"""


def program() -> Path:
    pins = b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))
    return CACHE / f"kube-router-{hashlib.sha256(pins).hexdigest()[:12]}"


def missing() -> list[Step]:
    """What is left to do. An interrupted build goes on with what it has downloaded and compiled."""
    if program().exists():
        return []
    if shutil.which("go") is None:
        raise RuntimeError("Go 1.26 or newer is needed to build kube-router: install it and put it on PATH")
    WORK.mkdir(parents=True, exist_ok=True)
    environment = {
        "CGO_ENABLED": "0", "GOFLAGS": "-modcacherw", "GOTMPDIR": str(WORK),
        "GOCACHE": str(WORK / "build"), "GOMODCACHE": str(WORK / "modules"),
    }  # fmt: skip
    command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", WORK / "kube-router", PACKAGE]
    return in_order([
        Step("kube-router", command, folder=MODULE, environment=environment),
        Step("remove kube-router's caches", ["bash", "-euc", FINISH, "finish", WORK, program()]),
    ])  # fmt: skip
