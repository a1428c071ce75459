"""What the kubelet and an administrator read of /readyz."""

from __future__ import annotations

import time

import aiohttp
from aiohttp.test_utils import make_mocked_request

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


async def test_metrics_are_not_written_anew_for_everybody_who_asks() -> None:
    """Whoever reaches the port may ask at any rate; to write them holds the event loop."""
    written: list[int] = []

    def write() -> bytes:
        written.append(len(written))
        time.sleep(0.05)  # nine times as long nobody has it written again
        return str(len(written)).encode()

    metrics = probes.Metrics(write)
    request = make_mocked_request("GET", "/metrics")
    began = time.monotonic()
    bodies = [(await metrics.answer(request)).body for _ in range(100)]
    assert len(written) <= 1 + (time.monotonic() - began) / 0.05 / 9
    assert set(bodies) <= {str(number + 1).encode() for number in written}
    metrics._until = 0.0
    assert (await metrics.answer(request)).body == str(len(written)).encode()
