"""One served namespace in trouble stops no other: without rights, deleted, unreadable."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llm_operator.kube.client import Client
from llm_operator.kube.kinds import CONFIG_MAP, TRAINING
from llm_operator.kube.login import Connection
from tests.api.kube.manifests import training
from tests.api.kube.proxy import Fault, Proxy
from tests.api.kube.replica import allow, exists, is_gone, is_running, phase, running, until
from tests.cluster.control_plane import ControlPlane


async def test_a_namespace_without_rights_does_not_stop_the_others(
    api_server: ControlPlane, client: Client, namespace: str, log_in: Callable[..., None]
) -> None:
    """Its Role went with it; when both are back it is served again."""
    other = f"{namespace}-other"
    api_server.kubectl("create", "namespace", other)
    allow(api_server, namespace, "limited-operator")
    log_in("limited-operator", group="limited")
    async with running(namespace, others=(other,)) as operator:
        await client.create(TRAINING, training(namespace))
        await client.create(TRAINING, training(other))
        await until(is_running(client, namespace))
        assert not operator.watches.cover(other)
        assert await phase(client, other) == "None"
        allow(api_server, other, "limited-operator")
        await until(is_running(client, other))


async def test_a_right_that_is_withdrawn_stops_one_namespace_only(
    connection: Connection, api_server: ControlPlane, client: Client, namespace: str
) -> None:
    """Nothing is decided there on what was known before."""
    other = f"{namespace}-other"
    api_server.kubectl("create", "namespace", other)
    withdrawn = Fault(lambda request: f"/namespaces/{other}/pods" in request.path, 10**6, status=403)
    async with (
        Proxy.before(connection) as (proxy, through_proxy),
        running(namespace, through_proxy, others=(other,)) as operator,
    ):
        await until(lambda: operator.leads)
        proxy.faults.append(withdrawn)
        proxy.cut_watches()
        proxy.resume()
        await until(lambda: not operator.watches.cover(other))
        for at in (namespace, other):
            await client.create(TRAINING, training(at))
        await until(is_running(client, namespace))
        assert await phase(client, other) == "None"
        assert not list(operator.unready())
        withdrawn.times = 0
        await until(is_running(client, other))


async def test_a_watched_namespace_that_is_deleted_stops_no_other_and_may_come_back(
    api_server: ControlPlane, client: Client, namespace: str, log_in: Callable[..., None]
) -> None:
    """Its Role goes with it."""
    other, user = f"{namespace}-other", f"operator-of-{namespace}"
    api_server.kubectl("create", "namespace", other)
    for served in (namespace, other):
        allow(api_server, served, user)
    log_in(user, group="limited")
    async with running(namespace, others=(other,), watch_seconds=30) as operator:
        await client.create(TRAINING, training(other))
        await until(is_running(client, other))
        assert not list(operator.unserved())
        api_server.kubectl("delete", "namespace", other, "--wait=false")
        await client.create(TRAINING, training(namespace))
        await until(is_running(client, namespace))
        await until(lambda: is_gone(client, f"/api/v1/namespaces/{other}"))
        await until(lambda: not operator.watches.cover(other))
        (said,) = operator.unserved()
        assert said.startswith(f"namespace {other} is not served: ")
        assert "forbidden" in said
        assert not list(operator.unready()), "the other one is served"
        await client.request("DELETE", CONFIG_MAP.path(namespace, "chat-config"))
        await until(lambda: exists(client, CONFIG_MAP.path(namespace, "chat-config")))
        api_server.kubectl("create", "namespace", other)
        allow(api_server, other, user)
        await client.create(TRAINING, training(other))
        await until(is_running(client, other))
        await until(lambda: not list(operator.unserved()))


@pytest.mark.parametrize(
    ("verbs", "resources", "missing"),
    [
        ("*", "pods,jobs.batch,llmtrainings.llm-operator.io,llmtrainings.llm-operator.io/status", "ConfigMap"),
        ("get,list,create,patch,update,delete", "*.*", "LLMTraining"),
    ],
    ids=["one kind may not be read", "nothing may be watched"],
)
async def test_a_role_that_lacks_something_is_told_and_stops_its_namespace_only(
    api_server: ControlPlane,
    client: Client,
    namespace: str,
    log_in: Callable[..., None],
    verbs: str,
    resources: str,
    missing: str,
) -> None:
    other, user = f"{namespace}-other", f"operator-of-{namespace}"
    api_server.kubectl("create", "namespace", other)
    allow(api_server, namespace, user)
    allow(api_server, other, user, verbs, resources, name="less")
    log_in(user, group="limited")
    async with running(namespace, others=(other,)) as operator:
        for at in (namespace, other):
            await client.create(TRAINING, training(at))
        await until(is_running(client, namespace))
        (said,) = operator.unserved()
        assert said.startswith(f"namespace {other} is not served: ")
        assert missing in said
        assert await phase(client, other) == "None"
        allow(api_server, other, user)
        await until(is_running(client, other))


async def test_a_collection_that_can_never_be_read_stops_its_namespace_only(
    connection: Connection, api_server: ControlPlane, client: Client, namespace: str
) -> None:
    """Say one object in etcd that no API server can decode."""
    other = f"{namespace}-other"
    api_server.kubectl("create", "namespace", other)
    broken = Fault(lambda request: f"/namespaces/{other}/configmaps" in request.path, 10**6, status=400)
    async with Proxy.before(connection) as (proxy, through_proxy):
        proxy.faults.append(broken)
        async with running(namespace, through_proxy, others=(other,)) as operator:
            await client.create(TRAINING, training(namespace))
            await until(is_running(client, namespace))
            assert [said.split(" is ")[0] for said in operator.unserved()] == [f"namespace {other}"]
            broken.times = 0
            await until(lambda: operator.watches.cover(other))
