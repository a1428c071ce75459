"""Two replicas and one Lease on a real API server. Durations are printed, never judged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from llm_operator.kube.client import Client
from llm_operator.kube.kinds import LEASE
from llm_operator.kube.lease import Lease, LeaseLostError
from llm_operator.kube.login import Connection
from tests.api.kube.proxy import Fault, Proxy


def replica(client: Client, namespace: str, name: str, seconds: float = 3) -> Lease:
    return Lease(client, namespace, "operator", name, seconds)


async def test_only_one_of_two_leads(client: Client, namespace: str) -> None:
    first, second = replica(client, namespace, "first"), replica(client, namespace, "second")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    waiting = asyncio.create_task(second.acquire())
    done, _ = await asyncio.wait({waiting, holding}, timeout=7)  # more than two lease times
    assert not done
    assert (first.leads, second.leads) == (True, False)
    for task in (holding, waiting):
        task.cancel()


async def test_a_release_hands_over(client: Client, namespace: str) -> None:
    first, second = replica(client, namespace, "first", 600), replica(client, namespace, "second", 600)
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.5)
    began = time.monotonic()
    await first.release()
    await waiting  # a Lease of ten minutes would not run out in this test's time
    print(f"take-over after a release: {time.monotonic() - began:.1f} s")
    assert (first.leads, second.leads) == (False, True)


async def test_a_silent_leader_is_replaced_and_may_not_come_back(client: Client, namespace: str) -> None:
    first, second = replica(client, namespace, "first"), replica(client, namespace, "second")
    await first.acquire()
    began = time.monotonic()
    await second.acquire()
    print(f"take-over from a silent leader with a Lease of 3 s: {time.monotonic() - began:.1f} s")
    with pytest.raises(LeaseLostError):
        await first.hold()
    lease = await client.get(LEASE.path(namespace, "operator"))
    assert lease["spec"]["holderIdentity"] == "second"
    assert lease["spec"]["leaseTransitions"] == 1


async def test_a_leader_without_an_api_server_gives_up_before_another_may_lead(
    connection: Connection, namespace: str, log_in: Callable[[str], None]
) -> None:
    async with Proxy.before(connection) as (proxy, through_proxy):
        client = Client(through_proxy)
        lease = replica(client, namespace, "first", 9)
        await lease.acquire()
        renewed = lease.renewed_at
        proxy.faults.append(Fault(lambda _: True, 1000, status=503))
        with pytest.raises(LeaseLostError):
            await lease.hold()
        assert renewed is not None
        assert lease.renewed_at == renewed
        print(f"gave up {time.monotonic() - renewed:.1f} s after the last renewal of a Lease of 9 s")
        await client.close()


async def test_a_passing_fault_costs_no_leadership(connection: Connection, namespace: str) -> None:
    async with Proxy.before(connection) as (proxy, through_proxy):
        client = Client(through_proxy)
        lease = replica(client, namespace, "first", 15)
        await lease.acquire()
        renewed = lease.renewed_at
        proxy.faults.append(Fault(lambda _: True, 2, status=503))
        holding = asyncio.create_task(lease.hold())
        await until(lambda: lease.renewed_at != renewed or holding.done())
        assert not holding.done()
        assert lease.leads
        holding.cancel()
        await client.close()


async def test_a_deleted_lease_is_made_again_by_its_holder(client: Client, namespace: str) -> None:
    lease = replica(client, namespace, "first")
    await lease.acquire()
    await client.request("DELETE", LEASE.path(namespace, "operator"))
    renewed = lease.renewed_at
    holding = asyncio.create_task(lease.hold())
    await until(lambda: lease.renewed_at != renewed or holding.done())
    assert not holding.done()
    assert (await client.get(LEASE.path(namespace, "operator")))["spec"]["holderIdentity"] == "first"
    holding.cancel()


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.1)
