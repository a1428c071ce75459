"""The server of an app as a process of its own, as in its pod."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from llm_app.config import Server
from tests.cluster.control_plane import free_ports

SERVE = """
import asyncio, sys
from llm_app import server
from llm_app.config import Server
server.IDLE_SECONDS = float(sys.argv[2])
asyncio.run(server.serve(Server.model_validate_json(sys.stdin.read()), int(sys.argv[1])))
"""


@dataclass(frozen=True)
class Served:
    url: str
    process: asyncio.subprocess.Process

    def memory(self, field: str) -> float:
        """MiB, with what is mapped of files. ``field``: VmRSS, now, or VmHWM, the most that it ever was."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) / 1024

    def cpu_seconds(self) -> float:
        """That it has taken, all its threads."""
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def serving(config: Server, idle_seconds: float = 5) -> AsyncIterator[Served]:
    port = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(port), str(idle_seconds), stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    process.stdin.write(config.model_dump_json(by_alias=True).encode())
    process.stdin.close()
    try:
        assert await process.stdout.readline(), "the server has ended"
        yield Served(f"http://127.0.0.1:{port}", process)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
