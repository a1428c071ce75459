"""A program of one Go package, at the version that a module of its own pins: no part of modules/, whose every change
would build the whole cluster anew.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.settings import CACHE
from tests.cluster.steps import Step, in_order

FINISH = """
mv "$1/$2" "$3"
rm -rf "$1"
"""


@dataclass(frozen=True)
class GoProgram:
    """`module`: the folder with go.mod and go.sum."""

    name: str
    module: Path
    package: str

    @property
    def path(self) -> Path:
        pins = b"".join((self.module / name).read_bytes() for name in ("go.mod", "go.sum"))
        return CACHE / f"{self.name}-{hashlib.sha256(pins).hexdigest()[:12]}"

    def missing(self) -> list[Step]:
        """What is left to do. An interrupted build goes on with what it has downloaded and compiled."""
        if self.path.exists():
            return []
        if shutil.which("go") is None:
            raise RuntimeError(f"Go 1.26 or newer is needed to build {self.name}: install it and put it on PATH")
        work = CACHE / f"go-{self.name}"
        work.mkdir(parents=True, exist_ok=True)
        environment = {
            "CGO_ENABLED": "0", "GOFLAGS": "-modcacherw", "GOTMPDIR": str(work),
            "GOCACHE": str(work / "build"), "GOMODCACHE": str(work / "modules"),
        }  # fmt: skip
        command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", work / self.name, self.package]
        return in_order([
            Step(self.name, command, folder=self.module, environment=environment),
            Step(f"remove {self.name}'s caches", ["bash", "-euc", FINISH, "finish", work, self.name, self.path]),
        ])  # fmt: skip
