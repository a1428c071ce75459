"""Plans against a real API server: a crash between any two writes, and what a pass then finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llm_operator.kube.cache import Cache
from llm_operator.kube.client import ApiError, Client, RefusedError
from llm_operator.kube.execute import Executor
from llm_operator.kube.kinds import CONFIG_MAP, EVENT, JOB, TRAINING
from llm_operator.kube.login import Connection
from llm_operator.kube.plan import Event, GoneError, Key, Manifest, Plan
from tests.api.kube.manifests import SmallRoom, config_map, job, training
from tests.api.kube.proxy import Fault, Proxy

CLUSTERS_OWN = "kube-root-ca.crt"  # a ConfigMap that comes into each namespace some time
WRITES = 5  # of SmallRoom: two created, one deleted, the status, an event


class CrashError(Exception):
    """The operator's process ended here."""


class CrashingClient(Client):
    """Ends before or after its n-th write."""

    def __init__(self, connection: Connection, writes: int, *, after: bool) -> None:
        super().__init__(connection)
        self._left, self._after = writes, after

    async def request(self, method: str, path: str, **options: Any) -> Manifest:
        if method == "GET":
            return await super().request(method, path, **options)
        self._left -= 1
        if self._left == 0 and not self._after:
            raise CrashError
        answer = await super().request(method, path, **options)
        if self._left == 0:
            raise CrashError
        return answer


async def fill(cache: Cache, client: Client, namespace: str) -> None:
    """What the watches tell an operator that has just started."""
    for kind in (TRAINING, CONFIG_MAP, JOB):
        for item in (await client.get(kind.path(namespace)))["items"]:
            cache.put(kind.name, item)


async def one_pass(client: Client, cache: Cache, namespace: str) -> Plan:
    room = SmallRoom(cache)
    observed = room.observe(Key("LLMTraining", namespace, "chat"))
    assert observed is not None
    plan = room.reconcile(observed, 0.0)
    await Executor(client, cache, lambda *_: None, "test").execute(observed[0], plan)
    return plan


async def state(client: Client, namespace: str) -> dict[str, Any]:
    """What there is in the end, without what differs from run to run."""
    found = {
        kind.name: (await client.get(kind.path(namespace)))["items"] for kind in (TRAINING, CONFIG_MAP, JOB, EVENT)
    }
    return {
        "names": {
            kind: sorted(item["metadata"]["name"] for item in items if item["metadata"]["name"] != CLUSTERS_OWN)
            for kind, items in found.items()
            if kind != "Event"
        },
        "status": found["LLMTraining"][0]["status"],
        "events": [(e["reason"], e["note"]) for e in found["Event"] if e["regarding"]["kind"] == "LLMTraining"],
    }


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("writes", range(1, WRITES + 1))
async def test_a_crash_at_any_write_converges(
    connection: Connection, client: Client, namespace: str, writes: int, after: bool
) -> None:
    owner = await client.create(TRAINING, training(namespace))
    await client.apply(config_map(owner, "old"))
    crashing = CrashingClient(connection, writes, after=after)
    cache = Cache()
    await fill(cache, client, namespace)
    with pytest.raises(CrashError):
        await one_pass(crashing, cache, namespace)
    await crashing.close()
    restarted = Cache()
    await fill(restarted, client, namespace)
    await one_pass(client, restarted, namespace)
    assert (await one_pass(client, restarted, namespace)).empty
    found = await state(client, namespace)
    assert found["names"] == {
        "LLMTraining": ["chat"],
        "ConfigMap": ["chat-config"],
        "Job": ["chat-job"],
    }
    assert found["status"]["phase"] == "Running"


async def test_a_pass_right_after_a_pass_writes_nothing(client: Client, namespace: str) -> None:
    """The answers to the writes are in the cache, though no watch has told of them."""
    await client.create(TRAINING, training(namespace))
    cache = Cache()
    await fill(cache, client, namespace)
    assert not (await one_pass(client, cache, namespace)).empty
    assert (await one_pass(client, cache, namespace)).empty


async def test_the_same_event_is_one_object(client: Client, namespace: str) -> None:
    owner = await client.create(TRAINING, training(namespace))
    executor = Executor(client, Cache(), lambda *_: None, "test")
    said = Event("Warning", "AttemptFailed", "attempt 1 failed: " + "語" * 2000)
    for _ in range(3):
        await executor.execute(owner, Plan(events=(said,)))
    await executor.execute(owner, Plan(events=(Event("Warning", "AttemptFailed", "attempt 2 failed"),)))
    events = (await client.get(EVENT.path(namespace)))["items"]
    assert len(events) == 2


async def test_a_refused_child_is_named(client: Client, namespace: str) -> None:
    owner = await client.create(TRAINING, training(namespace))
    wrong = job(owner)
    wrong["spec"]["template"]["spec"]["containers"][0]["image"] = ""
    with pytest.raises(RefusedError, match=r"Job chat-job: .*image"):
        await Executor(client, Cache(), lambda *_: None, "test").execute(owner, Plan(apply=(wrong,)))


async def test_a_child_that_is_there_already_is_kept(client: Client, namespace: str) -> None:
    """A pass made it and ended before it knew, or the watch is late."""
    owner = await client.create(TRAINING, training(namespace))
    made = await client.create(JOB, job(owner))
    cache = Cache()
    await Executor(client, cache, lambda *_: None, "test").execute(owner, Plan(create=(job(owner),)))
    found = cache.get("Job", namespace, "chat-job")
    assert found is not None
    assert found["metadata"]["uid"] == made["metadata"]["uid"]


async def test_a_lost_answer_makes_no_second_child(connection: Connection, client: Client, namespace: str) -> None:
    owner = await client.create(TRAINING, training(namespace))
    async with Proxy.before(connection) as (proxy, through_proxy):
        lossy, cache = Client(through_proxy), Cache()
        proxy.faults.append(Fault(lambda request: request.method == "POST", 1, after=True))
        await Executor(lossy, cache, lambda *_: None, "test").execute(owner, Plan(create=(job(owner),)))
        assert [method for method, _ in proxy.requests] == ["POST", "POST", "GET"]
        assert cache.get("Job", namespace, "chat-job") is not None
        await lossy.close()


def foreign(owner: Manifest) -> Manifest:
    """Somebody's own ConfigMap."""
    manifest = config_map(owner)
    del manifest["metadata"]["ownerReferences"], manifest["metadata"]["labels"]
    return manifest


def out_of_sight(owner: Manifest) -> Manifest:
    """Somebody took its labels, so no watch tells of it."""
    manifest = config_map(owner)
    del manifest["metadata"]["labels"]
    return manifest


@pytest.mark.parametrize("taken_by", [foreign, out_of_sight])
async def test_a_name_that_is_taken_is_told_and_left_alone(
    client: Client, namespace: str, taken_by: Callable[[Manifest], Manifest]
) -> None:
    owner = await client.create(TRAINING, training(namespace))
    theirs = await client.create(CONFIG_MAP, taken_by(owner))
    cache = Cache()
    with pytest.raises(RefusedError, match="ConfigMap chat-config: the name is taken by an object that is not ours"):
        await Executor(client, cache, lambda *_: None, "test").execute(owner, Plan(create=(config_map(owner),)))
    assert cache.get("ConfigMap", namespace, "chat-config") is None
    found = await client.get(CONFIG_MAP.path(namespace, "chat-config"))
    assert found["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]


async def test_no_event_without_its_status(client: Client, namespace: str) -> None:
    owner = await client.create(TRAINING, training(namespace))
    await client.replace_status(owner, {"phase": "Running", "conditions": [], "stages": []})
    plan = Plan(
        status={"phase": "Failed", "conditions": [], "stages": []}, events=(Event("Warning", "Failed", "it failed"),)
    )
    with pytest.raises(ApiError):
        await Executor(client, Cache(), lambda *_: None, "test").execute(owner, plan)
    assert (await client.get(EVENT.path(namespace)))["items"] == []


async def test_a_deleted_owner_ends_the_pass(client: Client, namespace: str) -> None:
    owner = await client.create(TRAINING, training(namespace))
    cache = Cache()
    cache.put("LLMTraining", owner)
    await client.request("DELETE", TRAINING.path(namespace, "chat"))
    plan = Plan(
        status={"phase": "Failed", "conditions": [], "stages": []}, events=(Event("Warning", "Failed", "it failed"),)
    )
    with pytest.raises(GoneError):
        await Executor(client, cache, lambda *_: None, "test").execute(owner, plan)
    assert cache.get("LLMTraining", namespace, "chat") is None
    assert (await client.get(EVENT.path(namespace)))["items"] == []
