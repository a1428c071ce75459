"""Runs programs in the trainer image without a cluster, on the loopback address alone."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from llm_server.first_token import Server, ask
from tests.cluster import images, steps
from tests.cluster.settings import LOGS

MODELS = "/volumes/models"  # inside
STARTED_SECONDS = 300
# A container of buildah sees the machine's cgroup; where the test has written another one, it takes its place.
MOUNT = """
if [ -e /tmp/cgroup ]; then
  folder=/sys/fs/cgroup
  [ ! -e $folder/memory ] || folder=$folder/memory
  mount --bind /tmp/cgroup $folder
fi
exec "$@"
"""


def container() -> str:
    """A container of the trainer image, to remove after use."""
    steps.run(images.missing(), LOGS)
    return images.buildah("from", images.tagged("llm-trainer")).stdout.strip()


class Launched:
    """`python -m llm_server.launch` in a container; ``models`` is the folder on the host, ``state`` its /tmp."""

    def __init__(self, name: str, models: Path, state: Path, arguments: list[str], environ: Mapping[str, str]) -> None:
        self.port, self.health_port = free_port(), free_port()
        self.state = state
        self._log = (state / "log").open("w+b")
        fixed = {
            "LLM_TERMINATION_MESSAGE": "/tmp/termination",
            "LLM_SERVER_PORT": str(self.health_port),
            "HOME": "/tmp",
            "TORCH_COMPILE_DISABLE": "1",
            "VLLM_CACHE_ROOT": "/tmp/vllm",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            **environ,
        }
        given = [
            *arguments, "--host=127.0.0.1", f"--port={self.port}", "--dtype=float32", "--enforce-eager",
            "--served-model-name=tiny", "--max-num-seqs=4",
        ]  # fmt: skip
        command = [
            "buildah", "run", "--user", "0", "--cap-add", "CAP_SYS_ADMIN",
            "-v", f"{models}:{MODELS}:ro", "-v", f"{state}:/tmp",
            *(part for key, value in fixed.items() for part in ("--env", f"{key}={value}")),
            name, "--", "sh", "-euc", MOUNT, "launch", "python", "-m", "llm_server.launch", *given,
        ]  # fmt: skip
        environment = os.environ | images.storage()
        self.process = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    @property
    def log(self) -> str:
        return (self.state / "log").read_text(errors="replace")

    @property
    def word(self) -> dict[str, Any]:
        """What it said at its end."""
        self.process.wait(STARTED_SECONDS)
        file = self.state / "termination"
        assert file.exists(), self.log[-3000:]
        found: dict[str, Any] = json.loads(file.read_bytes())
        return found

    def look(self, path: str) -> int:
        """The status of a probe; 0 where nothing listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.health_port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def start(self) -> dict[str, float]:
        """What it tells of its start."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/start", timeout=10) as answer:
            found: dict[str, float] = json.load(answer)
            return found

    def answer(
        self, path: str, body: dict[str, Any], key: str | None = None, *, tls: bool = False
    ) -> tuple[int, bytes]:
        """Of vLLM."""
        return ask(Server("127.0.0.1", self.port, "tiny", key, tls), path, body, STARTED_SECONDS)

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: object = None) -> int:
        """The status that vLLM's own server answers."""
        return self.asked(method, path, headers, body)[0]

    def asked(self, method: str, path: str, headers: Mapping[str, str], body: object = None) -> tuple[int, str]:
        """And what it says."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            if body is None:
                connection.request(method, path, headers=dict(headers))
            else:
                connection.request(method, path, json.dumps(body), {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def until_ready(self) -> None:
        began = time.monotonic()
        while self.look("/ready") != 200:
            assert self.process.poll() is None, self.log[-3000:]
            assert time.monotonic() < began + STARTED_SECONDS, self.log[-3000:]
            time.sleep(0.2)

    def pids(self, command: str) -> list[int]:
        """Of its processes whose command begins so, a regular expression."""
        return [pid for pid in below(self.process.pid) if re.match(command, command_of(pid))]


def command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def below(pid: int) -> Iterator[int]:
    """Its children and theirs."""
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():  # each lists those that it has forked itself
            for child in (thread / "children").read_text().split():
                yield int(child)
                yield from below(int(child))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def launched(name: str, models: Path, state: Path, *arguments: str, **environ: str) -> Iterator[Launched]:
    """It and all of its processes are ended at the end."""
    running = Launched(name, models, state, list(arguments), environ)
    try:
        yield running
    finally:
        # buildah first: one that sees its child end takes the mount away that the container's next run expects
        for pid in [running.process.pid, *below(running.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        running.process.wait()
