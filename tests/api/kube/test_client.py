"""The client against a real API server, and against one that is busy, away or lossy."""

from __future__ import annotations

import pytest

from llm_operator.kube.client import ApiError, Client, ConflictError, NotFoundError
from llm_operator.kube.kinds import CONFIG_MAP, JOB, TRAINING
from llm_operator.kube.login import Connection
from llm_operator.kube.plan import Delete
from tests.api.kube.manifests import config_map, job, training
from tests.api.kube.proxy import Fault, Proxy


async def test_apply_creates_and_a_second_apply_changes_nothing(client: Client, namespace: str) -> None:
    """Of a ConfigMap: the controller of Jobs writes to a Job between the two."""
    owner = await client.create(TRAINING, training(namespace))
    first = await client.apply(config_map(owner))
    second = await client.apply(config_map(owner))
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert {entry["manager"] for entry in first["metadata"]["managedFields"]} == {"llm-operator"}


async def test_a_misspelled_field_is_refused_and_named(client: Client, namespace: str) -> None:
    owner = await client.create(TRAINING, training(namespace))
    wrong = job(owner)
    wrong["spec"]["backofLimit"] = 0
    with pytest.raises(ApiError, match="backofLimit") as refused:
        await client.apply(wrong)
    assert refused.value.refused


async def test_a_misspelled_field_is_refused_at_creation_too(client: Client, namespace: str) -> None:
    owner = await client.create(TRAINING, training(namespace))
    wrong = job(owner)
    wrong["spec"]["backofLimit"] = 0
    with pytest.raises(ApiError, match="backofLimit") as refused:
        await client.create(JOB, wrong)
    assert refused.value.refused


@pytest.mark.parametrize(("created", "left"), [(True, {"key", "old"}), (False, {"key"})], ids=["created", "applied"])
async def test_only_what_was_applied_goes_by_applying(
    client: Client, namespace: str, created: bool, left: set[str]
) -> None:
    """Why a child is either created or applied, never both: the API server keeps the fields of a POST apart."""
    owner = await client.create(TRAINING, training(namespace))
    before, after = config_map(owner), config_map(owner)
    before |= {"data": {"key": "value", "old": "value"}, "immutable": False}
    after["immutable"] = False
    await (client.create(CONFIG_MAP, before) if created else client.apply(before))
    assert set((await client.apply(after))["data"]) == left


async def test_delete_spares_a_successor_of_the_same_name(client: Client, namespace: str) -> None:
    owner = await client.create(TRAINING, training(namespace))
    made = await client.apply(config_map(owner))
    assert await client.delete(namespace, Delete("v1", "ConfigMap", "chat-config", "another-uid")) is None
    assert (await client.get(CONFIG_MAP.path(namespace, "chat-config")))["metadata"]["uid"] == made["metadata"]["uid"]
    assert await client.delete(namespace, Delete("v1", "ConfigMap", "chat-config", made["metadata"]["uid"])) is None
    with pytest.raises(NotFoundError):
        await client.get(CONFIG_MAP.path(namespace, "chat-config"))
    assert await client.delete(namespace, Delete("v1", "ConfigMap", "chat-config", made["metadata"]["uid"])) is None


async def test_delete_returns_what_waits_for_a_finalizer(client: Client, namespace: str) -> None:
    owner = await client.create(TRAINING, training(namespace))
    held = config_map(owner)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    made = await client.apply(held)
    left = await client.delete(namespace, Delete("v1", "ConfigMap", "chat-config", made["metadata"]["uid"]))
    assert left is not None
    assert "deletionTimestamp" in left["metadata"]


async def test_a_stale_status_does_not_overwrite_a_newer_one(client: Client, namespace: str) -> None:
    owner = await client.create(TRAINING, training(namespace))
    newer = await client.replace_status(owner, {"phase": "Running", "conditions": [], "stages": []})
    with pytest.raises(ConflictError):
        await client.replace_status(owner, {"phase": "Pending", "conditions": [], "stages": []})
    assert (await client.get(TRAINING.path(namespace, "chat")))["status"]["phase"] == "Running"
    await client.replace_status(newer, {"phase": "Succeeded", "conditions": [], "stages": []})
    assert (await client.get(TRAINING.path(namespace, "chat")))["status"]["phase"] == "Succeeded"


async def test_the_status_is_replaced_as_a_whole(client: Client, namespace: str) -> None:
    owner = await client.create(TRAINING, training(namespace))
    first = await client.replace_status(owner, {"phase": "Running", "loss": "1.5", "conditions": [], "stages": []})
    second = await client.replace_status(first, {"phase": "Running", "conditions": [], "stages": []})
    assert "loss" not in second["status"]
    assert second["spec"]["nodes"] == 1, "a status write leaves the spec alone"


async def test_a_status_for_a_deleted_and_recreated_object_is_a_conflict(client: Client, namespace: str) -> None:
    owner = await client.create(TRAINING, training(namespace))
    await client.delete(namespace, Delete(TRAINING.api_version, "LLMTraining", "chat", owner["metadata"]["uid"]))
    with pytest.raises(NotFoundError):
        await client.replace_status(owner, {"phase": "Running", "conditions": [], "stages": []})
    await client.create(TRAINING, training(namespace))
    with pytest.raises(ConflictError):
        await client.replace_status(owner, {"phase": "Running", "conditions": [], "stages": []})


@pytest.mark.parametrize(
    "fault",
    [
        Fault(lambda _: True, 2, status=429, headers={"Retry-After": "1"}),
        Fault(lambda _: True, 3, status=503),
        Fault(lambda _: True, 2, status=500, after=True),
        Fault(lambda _: True, 2, status=0),
        Fault(lambda _: True, 2, status=0, after=True),
    ],
    ids=["429", "503", "500 after the write", "cut before the write", "cut after the write"],
)
async def test_writes_are_repeated_until_they_are_answered(
    connection: Connection, client: Client, namespace: str, fault: Fault
) -> None:
    owner = await client.create(TRAINING, training(namespace))
    async with Proxy.before(connection) as (proxy, through_proxy):
        patient = Client(through_proxy)
        proxy.faults.append(fault)
        times = fault.times
        await patient.apply(job(owner))
        assert [method for method, _ in proxy.requests] == ["PATCH"] * (times + 1)
        await patient.close()
    assert (await client.get(JOB.path(namespace, "chat-job")))["metadata"]["name"] == "chat-job"


async def test_an_endless_fault_is_an_error_in_the_end(connection: Connection, namespace: str) -> None:
    async with Proxy.before(connection) as (proxy, through_proxy):
        patient = Client(through_proxy)
        proxy.faults.append(Fault(lambda _: True, 100, status=503))
        with pytest.raises(ApiError, match="503: injected"):
            await patient.get(JOB.path(namespace))
        await patient.close()


async def test_refused_credentials_are_read_again(connection: Connection, namespace: str) -> None:
    async with Proxy.before(connection) as (proxy, through_proxy):
        patient = Client(through_proxy)
        proxy.faults.append(Fault(lambda _: True, 1, status=401))
        assert (await patient.get(JOB.path(namespace)))["items"] == []
        proxy.faults.append(Fault(lambda _: True, 9, status=401))
        with pytest.raises(ApiError, match="401"):
            await patient.get(JOB.path(namespace))
        await patient.close()


async def test_a_page_of_large_objects_has_fewer(client: Client, namespace: str) -> None:
    """Nobody holds 500 objects of a megabyte each at a time."""
    for number in range(24):
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"large-{number:02d}", "namespace": namespace},
        }
        await client.create(CONFIG_MAP, {**manifest, "data": {"text": "a" * 1_000_000}})
    pages = [len(page["items"]) async for page in client.pages(CONFIG_MAP.path(namespace), {})]
    assert sum(pages) >= 24
    assert max(pages) <= 16
