"""One collection against a real API server: pages, watches that end in every way, and rights that come and go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from llm_operator.kube import client as kube_client
from llm_operator.kube import reflector
from llm_operator.kube.cache import Cache
from llm_operator.kube.client import Client
from llm_operator.kube.kinds import CONFIG_MAP, DISRUPTION_BUDGET, JOB, TRAINING, Kind
from llm_operator.kube.login import Connection
from llm_operator.kube.plan import Manifest
from llm_operator.kube.reflector import Reflector
from tests.api.kube.manifests import config_map, training
from tests.api.kube.proxy import Fault, Proxy
from tests.api.kube.replica import until


class Seen:
    """What a reflector has told."""

    def __init__(self, kind: Kind, namespace: str, client: Client) -> None:
        self.cache = Cache()
        self.changed: list[str] = []
        self.turns: list[bool] = []
        self.kind, self.namespace = kind, namespace
        self.reflector = Reflector(
            client, self.cache, kind, namespace, changed=self._changed, turned=self._turned, watch_seconds=60,
            lists=asyncio.Semaphore(1),
        )  # fmt: skip

    def _changed(self, kind: str, manifest: Manifest) -> None:
        assert kind == self.kind.name
        self.changed.append(manifest["metadata"]["name"])

    def _turned(self) -> None:
        self.turns.append(self.reflector.listed)

    def names(self) -> set[str]:
        return {found["metadata"]["name"] for found in self.cache.objects(self.kind.name, self.namespace)}


@asynccontextmanager
async def reflecting(kind: Kind, namespace: str, client: Client) -> AsyncIterator[Seen]:
    seen = Seen(kind, namespace, client)
    running = asyncio.create_task(seen.reflector.run())
    try:
        yield seen
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@pytest.fixture
async def proxied(connection: Connection) -> AsyncIterator[tuple[Proxy, Client]]:
    """A client that asks for two objects a page, behind a proxy."""
    async with Proxy.before(connection) as (proxy, through_proxy):
        client = Client(through_proxy, page=2)
        yield proxy, client
        await client.close()


async def trainings(client: Client, namespace: str, *names: str) -> None:
    for name in names:
        await client.create(TRAINING, training(namespace, name))


async def test_a_page_is_taken_in_steps(client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else waits for the event loop has its turn between two objects: a probe, the Lease, another's pass."""
    monkeypatch.setattr(reflector, "STEP_SECONDS", 0.0)
    await trainings(client, namespace, *"abcde")
    known: set[int] = set()
    async with reflecting(TRAINING, namespace, client) as seen:
        while not seen.reflector.listed:
            known.add(len(seen.names()))
            await asyncio.sleep(0)
    assert known == set(range(6)), "somebody else ran after each"


async def test_pages_of_large_objects_have_fewer(
    client: Client, namespace: str, proxied: tuple[Proxy, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of no more than fit: no page is read in vain but the first."""
    await trainings(client, namespace, *"abcdefgh")
    one = len(json.dumps(await client.get(TRAINING.path(namespace, "a")), separators=(",", ":")))
    monkeypatch.setattr(kube_client, "PAGE_BYTES", 5 * one)
    proxy, _ = proxied
    paged = Client(proxied[1]._connection, page=8)
    try:
        sizes = [len(page["items"]) async for page in paged.pages(TRAINING.path(namespace), {})]
    finally:
        await paged.close()
    assert sizes == [2, 2, 2, 2]
    assert len(proxy.lists) == 1 + len(sizes), "the first was of eight"


async def test_a_collection_comes_in_pages(client: Client, namespace: str, proxied: tuple[Proxy, Client]) -> None:
    await trainings(client, namespace, *"abcde")
    proxy, paged = proxied
    async with reflecting(TRAINING, namespace, paged) as seen:
        await until(lambda: seen.reflector.listed)
        assert seen.names() == set("abcde")
        assert seen.changed == list("abcde"), "each is told once"
        assert len(proxy.lists) == 3


async def test_a_list_whose_rest_is_forgotten_starts_over(
    client: Client, namespace: str, proxied: tuple[Proxy, Client]
) -> None:
    await trainings(client, namespace, *"abcde")
    proxy, paged = proxied
    proxy.faults.append(Fault(lambda request: bool(request.query.get("continue")), 1, status=410))
    async with reflecting(TRAINING, namespace, paged) as seen:
        await until(lambda: seen.reflector.listed)
        assert seen.names() == set("abcde")


async def test_a_broken_watch_goes_on_where_it_was(
    client: Client, namespace: str, proxied: tuple[Proxy, Client]
) -> None:
    await trainings(client, namespace, "a", "b")
    proxy, paged = proxied
    async with reflecting(TRAINING, namespace, paged) as seen:
        await until(lambda: seen.names() == {"a", "b"})
        lists = len(proxy.lists)
        proxy.cut_watches()
        await client.request("DELETE", TRAINING.path(namespace, "a"))
        await trainings(client, namespace, "c")
        proxy.resume()
        await until(lambda: seen.names() == {"b", "c"})
        assert len(proxy.lists) == lists, "nothing was listed anew"


async def test_a_version_that_the_server_has_forgotten_is_a_new_list(client: Client, namespace: str) -> None:
    """The server itself says so of a version from before its start."""
    await trainings(client, namespace, "a", "b")
    async with reflecting(TRAINING, namespace, client) as seen:
        await until(lambda: seen.names() == {"a", "b"})
    await client.request("DELETE", TRAINING.path(namespace, "a"))
    seen.changed.clear()
    seen.reflector._version = "1"
    running = asyncio.create_task(seen.reflector.run())
    await until(lambda: seen.names() == {"b"})
    assert seen.changed == ["a"], "whoever depends on it is woken"
    running.cancel()


async def test_an_object_may_be_longer_than_a_buffer(client: Client, namespace: str) -> None:
    async with reflecting(TRAINING, namespace, client) as seen:
        await until(lambda: seen.reflector.listed)
        long = training(namespace, "long")
        long["metadata"]["annotations"] = {"example.com/long": "x" * 200_000}
        await client.create(TRAINING, long)
        await trainings(client, namespace, "after")
        await until(lambda: seen.names() == {"long", "after"})


@pytest.mark.parametrize("kind", [CONFIG_MAP, DISRUPTION_BUDGET], ids=lambda kind: kind.name)
async def test_where_nothing_else_is_read_only_the_metadata_comes(
    namespace: str, proxied: tuple[Proxy, Client], kind: Kind
) -> None:
    proxy, paged = proxied
    async with reflecting(kind, namespace, paged) as seen:
        await until(lambda: seen.reflector.listed)
    assert {path for path, _ in proxy.lists} == {kind.path(namespace)}
    assert all("as=PartialObjectMetadataList" in accepted for _, accepted in proxy.lists)


async def test_metadata_is_listed_and_watched(client: Client, namespace: str) -> None:
    owner = await client.create(TRAINING, training(namespace))
    await client.create(CONFIG_MAP, config_map(owner, "listed"))
    async with reflecting(CONFIG_MAP, namespace, client) as seen:
        await until(lambda: seen.names() == {"listed"})
        await client.create(CONFIG_MAP, config_map(owner, "watched"))
        await until(lambda: seen.names() == {"listed", "watched"})
        for found in seen.cache.objects(CONFIG_MAP.name, namespace):
            assert set(found) == {"apiVersion", "kind", "metadata"}
            assert found["kind"] == "ConfigMap"
        await client.request("DELETE", CONFIG_MAP.path(namespace, "watched"))
        await until(lambda: seen.names() == {"listed"})


async def test_a_refused_collection_is_listed_when_it_may_be(
    client: Client, namespace: str, proxied: tuple[Proxy, Client]
) -> None:
    proxy, paged = proxied
    no_right = Fault(lambda request: request.method == "GET", 10**6, status=403)
    async with reflecting(TRAINING, namespace, paged) as seen:
        await until(lambda: seen.turns == [True])
        proxy.faults.append(no_right)
        proxy.cut_watches()
        proxy.resume()
        await until(lambda: seen.turns == [True, False])
        assert seen.reflector.refusal == "injected"
        await trainings(client, namespace, "a")
        no_right.times = 0
        await until(lambda: seen.turns == [True, False, True])
        assert (seen.reflector.refusal, seen.names()) == ("", {"a"})


async def test_a_status_in_the_place_of_an_event_ends_the_watch_and_not_the_operator(
    client: Client, namespace: str, proxied: tuple[Proxy, Client]
) -> None:
    """Something between us and the server answers in its own way."""
    proxy, paged = proxied
    async with reflecting(TRAINING, namespace, paged) as seen:
        await until(lambda: seen.turns == [True])
        proxy.end_watches(b'{"kind":"Status","status":"Failure","message":"initializing","code":429}\n')
        await trainings(client, namespace, "a")
        proxy.resume()
        await until(lambda: seen.names() == {"a"})


async def test_a_server_that_is_away_is_no_refusal(client: Client, namespace: str, connection: Connection) -> None:
    async with Proxy.before(connection) as (proxy, through_proxy):
        away = Client(through_proxy)
        proxy.faults += [Fault(lambda _: True, 3, status=503), Fault(lambda _: True, 3)]
        async with reflecting(JOB, namespace, away) as seen:
            await until(lambda: seen.reflector.listed)
            assert seen.turns == [True]
        await away.close()


async def test_a_cluster_that_was_restored_from_a_backup_is_read_anew(
    client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What we know is newer than what there is: of a watch from a version to come the server says nothing."""
    monkeypatch.setattr(reflector, "SILENT_SECONDS", 1.0)
    await trainings(client, namespace, "a", "b")
    seen = Seen(TRAINING, namespace, client)
    first, second = (await client.get(TRAINING.path(namespace)))["items"]
    later = str(10**9)
    for name, uid in (("a", first["metadata"]["uid"]), ("lost", "uid-lost")):  # as they were before the restore
        metadata = {**first["metadata"], "name": name, "uid": uid, "resourceVersion": later}
        seen.cache.put(TRAINING.name, {**first, "metadata": metadata})
    seen.cache.remove(TRAINING.name, second)  # which was deleted after the backup was taken
    seen.reflector._version, seen.reflector._newest = later, int(later)
    running = asyncio.create_task(seen.reflector.run())
    await until(lambda: seen.names() == {"a", "b"})
    found = seen.cache.get(TRAINING.name, namespace, "a")
    assert found is not None
    assert found["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    running.cancel()
