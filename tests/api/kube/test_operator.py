"""The whole operator with a small room, against a real API server: what the watches do, and what a restart does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack

import pytest

from llm_operator import app
from llm_operator.kube.cache import Cache
from llm_operator.kube.client import ApiError, Client
from llm_operator.kube.kinds import CLAIM, CONFIG_MAP, JOB, LEASE, POD, TRAINING
from llm_operator.kube.login import Connection
from llm_operator.kube.operator import Operator
from llm_operator.kube.plan import Key, Manifest
from llm_operator.kube.room import Room
from llm_operator.settings import Settings
from tests.api.kube.manifests import SmallRoom, config_map, job, training
from tests.api.kube.proxy import Proxy
from tests.api.kube.replica import are_running, exists, is_running, running, until
from tests.bench import audit
from tests.cluster.control_plane import ControlPlane

MANY = 50  # trainings
HUNDREDS = 300


async def test_a_training_gets_its_children_and_its_status(client: Client, namespace: str) -> None:
    async with running(namespace):
        await client.create(TRAINING, training(namespace))
        await until(is_running(client, namespace))
        assert await exists(client, CONFIG_MAP.path(namespace, "chat-config"))
        assert await exists(client, JOB.path(namespace, "chat-job"))


async def test_of_what_is_deleted_a_room_forgets_all(client: Client, namespace: str) -> None:
    rooms: list[SmallRoom] = []

    def made(cache: Cache) -> Mapping[str, Room]:
        rooms.append(SmallRoom(cache))
        return {"LLMTraining": rooms[0]}

    async with running(namespace, rooms=made):
        await client.create(TRAINING, training(namespace))
        await until(is_running(client, namespace))
        assert rooms[0].forgotten == []
        await client.request("DELETE", TRAINING.path(namespace, "chat"))
        await until(lambda: Key("LLMTraining", namespace, "chat") in rooms[0].forgotten)


async def test_a_deleted_child_is_made_again(client: Client, namespace: str) -> None:
    async with running(namespace):
        await client.create(TRAINING, training(namespace))
        await until(is_running(client, namespace))
        first = await client.get(CONFIG_MAP.path(namespace, "chat-config"))
        await client.request("DELETE", CONFIG_MAP.path(namespace, "chat-config"))
        await until(lambda: exists(client, CONFIG_MAP.path(namespace, "chat-config")))
        second = await client.get(CONFIG_MAP.path(namespace, "chat-config"))
        assert second["metadata"]["uid"] != first["metadata"]["uid"]


async def test_a_restart_and_a_standby_write_nothing_but_the_lease(
    client: Client, namespace: str, api_server: ControlPlane, log_in: Callable[[str], None]
) -> None:
    names = ["chat", *(f"chat-{number}" for number in range(MANY - 1))]
    async with running(namespace):
        for name in names:
            await client.create(TRAINING, training(namespace, name))
        await until(are_running(client, namespace, MANY))
    log_in("restarted-operator")
    async with AsyncExitStack() as replicas:
        leader = await replicas.enter_async_context(running(namespace))
        await until_reconciled(leader)
        standby = await replicas.enter_async_context(running(namespace))
        await until(lambda: not list(standby.unready()))
        assert len(list(standby.cache.objects("LLMTraining"))) == MANY, "a standby keeps its cache warm"
    writes = [r.resource for r in audit.requests(api_server.audit_log, "restarted-operator") if r.write]
    assert set(writes) == {"leases"}


async def test_a_restart_with_many_trainings_writes_nothing_but_the_lease(
    client: Client, namespace: str, api_server: ControlPlane, log_in: Callable[[str], None]
) -> None:
    """The rooms that users have, over trainings that have their Jobs."""
    await client.create(CLAIM, {
        "metadata": {"name": "models", "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    })  # fmt: skip
    async with running(namespace, rooms=None) as operator:
        for number in range(HUNDREDS):
            await client.create(TRAINING, plain(namespace, f"many-{number}"))
        for kind in (JOB, POD):
            await until(lambda kind=kind: len(list(operator.cache.objects(kind.name, namespace))) == HUNDREDS)  # type: ignore[misc]
        await until(lambda: all(one.get("status") for one in operator.cache.objects("LLMTraining", namespace)))
        await until_reconciled(operator)
    log_in("restarted-with-many")
    async with running(namespace, rooms=None) as again:
        await until_reconciled(again)
        await until(lambda: len(list(again.cache.objects("LLMTraining", namespace))) == HUNDREDS)
    seen = list(audit.requests(api_server.audit_log, "restarted-with-many"))
    assert {request.resource for request in seen if request.write} == {"leases"}
    listed = Counter(request.resource for request in seen if request.verb == "list")
    assert listed["llmtrainings"] <= 2, "in pages, not one by one"


def plain(namespace: str, name: str) -> Manifest:
    spec = {
        "nodes": 1,
        "storage": {"persistentVolumeClaim": {"claimName": "models"}},
        "model": {"uri": "pvc://models/base"},
        "stages": [{"name": "chat", "sft": {"dataset": {"uri": "pvc://models/chat.jsonl"}}}],
    }
    return {**training(namespace, name), "spec": spec}


async def until_reconciled(operator: Operator) -> None:
    """The operator leads and has looked at everything it knows."""
    queue = operator.workers.queue
    await until(lambda: operator.reconciles and not queue.running and not queue.depth(time.monotonic()))


async def test_a_standby_takes_over(client: Client, namespace: str) -> None:
    async with AsyncExitStack() as standby:
        async with running(namespace) as first:
            await until(lambda: first.leads)
            second = await standby.enter_async_context(running(namespace))
            await asyncio.sleep(1)
            assert not second.leads
        await client.create(TRAINING, training(namespace))
        await until(is_running(client, namespace))
        assert second.leads


async def test_an_object_that_vanished_while_no_watch_ran_leaves_the_cache(
    connection: Connection, client: Client, namespace: str
) -> None:
    """A watch that expires is a new list, and what that lacks was deleted."""
    owner = await client.create(TRAINING, training(namespace))
    async with Proxy.before(connection) as (proxy, through_proxy), running(namespace, through_proxy) as operator:
        await until(is_running(client, namespace))
        await client.apply(config_map(owner, "extra"))
        await until(lambda: operator.cache.get("ConfigMap", namespace, "extra") is not None)
        proxy.expire_watches()
        await client.request("DELETE", CONFIG_MAP.path(namespace, "extra"))
        proxy.resume()
        await until(lambda: operator.cache.get("ConfigMap", namespace, "extra") is None)


async def test_the_operator_waits_for_its_crds(connection: Connection, client: Client, namespace: str) -> None:
    """A chart may start the operator before its definitions are served."""
    async with Proxy.before(connection) as (proxy, through_proxy):
        proxy.hidden = TRAINING.path().rpartition("/")[0]
        async with running(namespace, through_proxy) as operator:
            await until(lambda: any("llm-operator.io" in path for _, path in proxy.requests))
            assert list(operator.unready())
            assert not await exists(client, LEASE.path(namespace, "llm-operator"))
            proxy.hidden = ""
            await client.create(TRAINING, training(namespace))
            await until(is_running(client, namespace))
            assert not list(operator.unready())


async def test_a_replica_stands_for_election_when_it_is_ready(
    connection: Connection, client: Client, namespace: str
) -> None:
    """Else the other one, which could lead at once, waits for a leader that is still reading."""
    async with Proxy.before(connection) as (proxy, through_proxy):
        proxy.hidden = POD.path(namespace)
        async with running(namespace, through_proxy) as operator:
            await until(lambda: [problem.split()[0] for problem in operator.unready()] == ["Pod"])
            await asyncio.sleep(1)
            assert not await exists(client, LEASE.path(namespace, "llm-operator"))
            proxy.hidden = ""
            await until(lambda: operator.leads)
            assert not list(operator.unready())


async def test_a_spec_change_during_a_pass_is_not_overwritten(client: Client, namespace: str) -> None:
    """The status write of a pass that saw the old spec fails, and the next pass sees the new one."""
    async with running(namespace):
        await client.create(TRAINING, training(namespace))
        await until(is_running(client, namespace))
        for nodes in range(2, 6):
            await client.apply(training(namespace, nodes=nodes))

        async def observed() -> bool:
            found = await client.get(TRAINING.path(namespace, "chat"))
            return bool(found["status"]["observedGeneration"] == found["metadata"]["generation"])

        await until(observed)


async def test_probes_tell_a_stale_watch(connection: Connection, namespace: str) -> None:
    settings = Settings(namespaces=(namespace,), watch_seconds=30)
    operator = Operator(settings, connection, Client(connection), Cache(), {})
    assert list(operator.dead()) == []
    stale = next(reflector for reflector in operator.watches.reflectors if reflector.kind is JOB)
    stale.heard_at -= 1000
    assert any("watch of Job" in problem for problem in operator.dead())
    await operator.client.close()
    with pytest.raises((ApiError, RuntimeError)):
        await operator.client.get(JOB.path(namespace))


async def test_a_missing_job_is_asked_for_before_it_is_believed_gone(
    connection: Connection, client: Client, namespace: str
) -> None:
    """A watch that is half dead, and then this replica leads: a Job that runs would be made once more."""
    owner = await client.create(TRAINING, training(namespace))
    names = {"there": "chat-base-1", "gone": "chat-data-1", "theirs": "foreign"}
    await client.create(JOB, job(owner, names["there"]))
    theirs = job(owner, names["theirs"])
    del theirs["metadata"]["ownerReferences"]
    await client.create(JOB, theirs)
    start = "2026-01-01T00:00:00Z"
    attempts = [{"number": n, "job": name, "startTime": start} for n, name in enumerate(names.values(), 1)]
    status = {"phase": "Running", "stages": [{"name": "base", "kind": "pretrain", "attempts": attempts}]}
    owner = await client.replace_status(owner, status)
    cache = Cache()
    cache.put("LLMTraining", owner)
    settings = Settings(namespaces=(namespace,))
    rooms = app.rooms(cache, client, settings)
    operator = Operator(settings, connection, client, cache, rooms)
    observed = await operator._observe(rooms["LLMTraining"], Key("LLMTraining", namespace, "chat"), owner)
    assert [found["metadata"]["name"] for found in observed.jobs] == [names["there"]]
    unseen = {name for _, name in rooms["LLMTraining"].unseen(observed)}
    assert unseen == {names["gone"], names["theirs"]}


class Stumbling(SmallRoom):
    """Can't read some object of others."""

    def wakes(self, kind: str, manifest: Manifest) -> Iterable[Key]:
        raise KeyError("reason")


async def test_an_object_that_can_not_be_read_does_not_end_the_watch_of_all(client: Client, namespace: str) -> None:
    async with running(namespace, rooms=lambda cache: {"LLMTraining": Stumbling(cache)}):
        await client.create(TRAINING, training(namespace))
        await until(is_running(client, namespace))
        await client.request("DELETE", CONFIG_MAP.path(namespace, "chat-config"))
        await until(lambda: exists(client, CONFIG_MAP.path(namespace, "chat-config")))
