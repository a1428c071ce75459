"""A replica of the operator in a thread of this process, and what tests wait for."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress

from llm_operator import app
from llm_operator.api.network import NetworkPolicies
from llm_operator.kube.cache import Cache
from llm_operator.kube.client import Client, NotFoundError
from llm_operator.kube.kinds import TRAINING
from llm_operator.kube.login import Connection
from llm_operator.kube.operator import Operator
from llm_operator.kube.room import Room
from llm_operator.settings import Settings
from tests.api.kube.manifests import SmallRoom
from tests.cluster.control_plane import ControlPlane

Rooms = Callable[[Cache], Mapping[str, Room]]

_replicas = itertools.count(1)


@asynccontextmanager
async def running(
    namespace: str,
    connection: Connection | None = None,
    others: tuple[str, ...] = (),
    rooms: Rooms | None = lambda cache: {"LLMTraining": SmallRoom(cache)},
    watch_seconds: int = 300,
    network_policies: bool = False,
) -> AsyncIterator[Operator]:
    """A replica that serves this namespace, which has its Lease, and others, until the block ends.

    ``rooms``: None for those that users have.

    It has a thread of its own: when kopf ends it cancels every task of its event loop.
    """
    settings = Settings(
        namespaces=(namespace, *others), pod_namespace=namespace, pod_name=f"replica-{next(_replicas)}",
        metrics_port=0, probe_port=0, lease_seconds=6, watch_seconds=watch_seconds,
        network_policies=NetworkPolicies(enabled=network_policies),
    )  # fmt: skip
    started: Future[tuple[Operator, asyncio.AbstractEventLoop]] = Future()

    async def operate() -> None:
        cache = Cache()
        own = connection or await Connection.open()
        client = Client(own)
        found = rooms(cache) if rooms else app.rooms(cache, client, settings)
        operator = Operator(settings, own, client, cache, found)
        started.set_result((operator, asyncio.get_running_loop()))
        await app.serve(operator)

    ended = asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(operate()))
    operator, loop = await asyncio.wrap_future(started)
    try:
        yield operator
    finally:
        with suppress(RuntimeError):  # it has ended before
            loop.call_soon_threadsafe(operator.stop.set)
        await ended


async def until(true: Callable[[], Awaitable[bool] | bool]) -> None:
    async with asyncio.timeout(120):
        while True:
            answer = true()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.1)


async def exists(client: Client, path: str) -> bool:
    try:
        await client.get(path)
    except NotFoundError:
        return False
    return True


async def is_gone(client: Client, path: str) -> bool:
    return not await exists(client, path)


async def phase(client: Client, namespace: str) -> str:
    found = await client.get(TRAINING.path(namespace, "chat"))
    return str((found.get("status") or {}).get("phase"))


def is_running(client: Client, namespace: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return await phase(client, namespace) == "Running"

    return check


def are_running(client: Client, namespace: str, count: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        found = (await client.get(TRAINING.path(namespace)))["items"]
        return [(one.get("status") or {}).get("phase") for one in found] == ["Running"] * count

    return check


def allow(
    api_server: ControlPlane, namespace: str, user: str, verbs: str = "*", resources: str = "*.*", name: str = "all"
) -> None:
    """Everything in the namespace, or only so much."""
    api_server.kubectl("create", "role", name, f"--verb={verbs}", f"--resource={resources}", "-n", namespace)
    api_server.kubectl("create", "rolebinding", name, f"--role={name}", f"--user={user}", "-n", namespace)
