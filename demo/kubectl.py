"""kubectl with a fixed cluster and namespace."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class Kubectl:
    binary: Path
    kubeconfig: Path
    namespace: str

    @property
    def prefix(self) -> list[str]:
        return [str(self.binary), "--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace]

    def run(self, *arguments: str, text: str | None = None, stdin: IO[bytes] | None = None, check: bool = True) -> str:
        """Output of one kubectl call; a failure raises RuntimeError with kubectl's own words."""
        done = subprocess.run(
            [*self.prefix, *arguments],
            input=None if text is None else text.encode(),
            stdin=stdin,
            capture_output=True,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.decode().strip()}")
        return done.stdout.decode()

    def apply(self, *objects: dict[str, Any]) -> None:
        self.run(
            "apply", "--server-side", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        found = self.run("get", kind, name, "--ignore-not-found", "-o", "json")
        return json.loads(found) if found else None

    @contextmanager
    def forward(self, target: str, port: int) -> Iterator[str]:
        """The base URL, on loopback, of a port of a service or pod."""
        process = subprocess.Popen(
            [*self.prefix, "port-forward", target, f":{port}", "--address", "127.0.0.1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ,
        )
        try:
            assert process.stdout is not None  # noqa: S101 -- PIPE was asked for
            line = process.stdout.readline()  # "Forwarding from 127.0.0.1:43211 -> 8000"
            if "->" not in line:
                raise RuntimeError(f"kubectl port-forward {target} did not start")
            yield f"http://{line.split()[2]}"
        finally:
            process.terminate()
            process.wait()
