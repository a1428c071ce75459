"""The Prometheus operator and its definitions, at the version that its module here pins.

The definitions are files of the module and cost a download of 4 MB; the program is built for the second level of
tests alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from tests.cluster.go_program import GoProgram
from tests.cluster.settings import CACHE, HERE

MODULE, PINS = "github.com/prometheus-operator/prometheus-operator", HERE / "prometheus_operator"
PROMETHEUS_OPERATOR = GoProgram("prometheus-operator", PINS, f"{MODULE}/cmd/operator")


def definitions() -> Path:
    """A folder with the CRDs of monitoring.coreos.com; go.sum tells whether they are what was pinned."""
    pinned = hashlib.sha256((PINS / "go.mod").read_bytes() + (PINS / "go.sum").read_bytes()).hexdigest()[:12]
    folder = CACHE / f"prometheus-definitions-{pinned}"
    if folder.exists():
        return folder
    if shutil.which("go") is None:
        raise RuntimeError(f"Go 1.26 or newer is needed to download {MODULE}: install it and put it on PATH")
    work = CACHE / f"prometheus-definitions-{os.getpid()}"
    environment = {**os.environ, "GOFLAGS": "-modcacherw", "GOMODCACHE": str(work / "modules")}
    command = ["go", "mod", "download", "-json", MODULE]
    try:
        done = subprocess.run(command, cwd=PINS, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        shutil.copytree(Path(json.loads(done.stdout)["Dir"]) / "example" / "prometheus-operator-crd", work / "crds")
        try:
            (work / "crds").rename(folder)
        except OSError:  # another one was faster
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder
