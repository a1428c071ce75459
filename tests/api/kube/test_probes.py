"""What the kubelet and an administrator read of /readyz."""

from __future__ import annotations

import aiohttp

from llm_operator import probes
from tests.cluster.control_plane import free_ports


async def answer(problems: list[str], notes: list[str]) -> tuple[int, str]:
    route = probes.probe("/readyz", lambda: problems, notes=lambda: notes)
    port = free_ports(1)  # not 0, which would be another one for each family of addresses
    async with (
        probes.serve(port, route),
        aiohttp.ClientSession() as session,
        session.get(f"http://localhost:{port}/readyz") as found,
    ):
        return found.status, await found.text()


async def test_a_namespace_that_is_not_served_is_told_by_a_replica_that_is_ready() -> None:
    assert await answer([], []) == (200, "ok")
    assert await answer([], ["namespace b is not served"]) == (200, "ok\nnamespace b is not served")
    assert await answer(["Pod was not listed yet"], ["namespace b"]) == (503, "Pod was not listed yet\nnamespace b")
