"""kube-router, which enforces NetworkPolicies: built on first use, as one test of the second level alone needs it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from tests.cluster import steps
from tests.cluster.settings import CACHE, HERE, LOGS
from tests.cluster.steps import Step, in_order

MODULE = HERE / "policy_engine"  # pins its version; not in modules/, or each change would build the whole cluster anew
PACKAGE = "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"


def program() -> Path:
    """Where it is; built from the Go module proxy if it isn't there."""
    pins = b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))
    found = CACHE / f"kube-router-{hashlib.sha256(pins).hexdigest()[:12]}"
    if found.exists():
        return found
    if shutil.which("go") is None:
        raise RuntimeError("Go 1.26 or newer is needed to build kube-router: install it and put it on PATH")
    work = CACHE / f"go-kube-router-{os.getpid()}"
    work.mkdir(parents=True)
    environment = {
        "CGO_ENABLED": "0", "GOFLAGS": "-modcacherw", "GOTMPDIR": str(work),
        "GOCACHE": str(work / "build"), "GOMODCACHE": str(work / "modules"),
    }  # fmt: skip
    command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", work / "kube-router", PACKAGE]
    try:
        steps.run(in_order([Step("kube-router", command, folder=MODULE, environment=environment)]), LOGS)
        (work / "kube-router").replace(found)
    finally:
        shutil.rmtree(work)
    return found
