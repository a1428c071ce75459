"""Processes watched from outside: the operator as users run it, and what the API server and etcd take."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.cluster.control_plane import ControlPlane

LOOK_SECONDS = 0.05


@dataclass
class OperatorProcess:
    """Ready, with its own identity at the API server. ``answers`` has how long each /healthz took, in seconds."""

    pid: int
    metrics_port: int
    wall_seconds: float = 0.0  # from the start until /readyz
    answers: list[float] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def started(
        cls, kubeconfig: Path, log: Path, *, namespaces: str, module: str = "llm_operator", probed: bool = False
    ) -> AsyncIterator[OperatorProcess]:
        metrics, probes = free_port(), free_port()
        environment = os.environ | {
            "KUBECONFIG": str(kubeconfig),
            "NAMESPACES": namespaces,
            "METRICS_PORT": str(metrics),
            "PROBE_PORT": str(probes),
            "POD_NAME": "bench",
        }
        began = time.monotonic()
        with log.open("w") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, env=environment, stdout=output, stderr=output
            )
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{probes}") as session:
                operator = cls(process.pid, metrics)
                probing = asyncio.create_task(operator._probe(session) if probed else asyncio.sleep(0))
                while not await answers(session, "/readyz"):
                    if process.returncode is not None:
                        raise RuntimeError(f"the operator ended:\n{log.read_text()[-3000:]}")  # noqa: ASYNC240
                    await asyncio.sleep(LOOK_SECONDS)
                operator.wall_seconds = time.monotonic() - began
                yield operator
                probing.cancel()
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    async def _probe(self, session: aiohttp.ClientSession) -> None:
        while True:
            began = time.monotonic()
            if await answers(session, "/healthz"):
                self.answers.append(time.monotonic() - began)
            await asyncio.sleep(LOOK_SECONDS)

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def memory_mib(self) -> tuple[float, float]:
        """Resident now and at most."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return int(fields["VmRSS"].split()[0]) / 1024, int(fields["VmHWM"].split()[0]) / 1024

    async def idle(self) -> None:
        """Returns when it leads and no key waits for a worker."""
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"http://127.0.0.1:{self.metrics_port}/metrics") as answer:
                    lines = (await answer.text()).splitlines()
                found = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in lines}
                gauges = ("llm_operator_workqueue_depth", "llm_operator_active_workers")
                waiting = sum(float(found[f'{gauge}{{controller="reconcile"}}']) for gauge in gauges)
                if float(found["llm_operator_leader"]) and not waiting:
                    return
                await asyncio.sleep(0.5)


async def answers(session: aiohttp.ClientSession, path: str) -> bool:
    with suppress(aiohttp.ClientConnectionError):
        async with session.get(path) as answer:
            return answer.ok
    return False


@dataclass(frozen=True)
class ServerCpu:
    """CPU seconds of the API server and etcd at one moment."""

    at: float
    api_server: float
    etcd: float

    @classmethod
    def now(cls, plane: ControlPlane) -> ServerCpu:
        spent = (cpu_seconds(plane.processes.pid(name) or 0) for name in ("kube-apiserver", "etcd"))
        return cls(time.monotonic(), *spent)

    @classmethod
    async def idle_rate(cls, plane: ControlPlane, seconds: float = 10) -> ServerCpu:
        """CPU seconds of each in a second of idling; ``at`` is 1."""
        before = cls.now(plane)
        await asyncio.sleep(seconds)
        after = cls.now(plane)
        return cls(1, (after.api_server - before.api_server) / seconds, (after.etcd - before.etcd) / seconds)

    def since(self, before: ServerCpu, idle: ServerCpu) -> tuple[float, float]:
        """What both spent beyond idling."""
        seconds = self.at - before.at
        return (
            self.api_server - before.api_server - idle.api_server * seconds,
            self.etcd - before.etcd - idle.etcd * seconds,
        )


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
