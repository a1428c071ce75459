"""What is not ours is neither taken over nor deleted: not by its name, not by its labels, in no moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llm_operator.kube import labels
from llm_operator.kube.cache import Cache
from llm_operator.kube.client import Client, RefusedError
from llm_operator.kube.execute import Executor
from llm_operator.kube.kinds import (
    CLAIM,
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    JOB,
    KINDS,
    SERVICE,
    SERVING,
    TRAINING,
    Kind,
)
from llm_operator.kube.plan import Manifest, Plan
from tests.api.kube.manifests import child, config_map, job, serving, training
from tests.api.kube.replica import exists, running, until
from tests.cluster.control_plane import ControlPlane

NAME = "chat-serving"
POD = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web"}]}}
SELECTOR = {"matchLabels": {"app": "web"}}
USERS_OWN: dict[str, Manifest] = {  # of the name that a serving's child has
    "Service": {"selector": {"app": "web"}, "ports": [{"name": "web", "port": 8443, "targetPort": 8443}]},
    "Deployment": {"selector": SELECTOR, "template": POD},
    "PodDisruptionBudget": {"minAvailable": 1, "selector": SELECTOR},
    "NetworkPolicy": {"podSelector": SELECTOR, "policyTypes": ["Ingress"]},
}
OUR_LABELS = {labels.MANAGED_BY: labels.OPERATOR, labels.SERVING: "chat"}


def users_own(kind: str, namespace: str, **with_labels: str) -> Manifest:
    metadata = {"name": NAME, "namespace": namespace, "labels": {"team": "web", **with_labels}}
    return {"apiVersion": KINDS[kind].api_version, "kind": kind, "metadata": metadata, "spec": USERS_OWN[kind]}


@asynccontextmanager
async def served(client: Client, namespace: str) -> AsyncIterator[None]:
    """The operator, and a serving whose claim is there."""
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"apiVersion": "v1", "kind": CLAIM.name, "metadata": {"name": "models", "namespace": namespace}}
    await client.create(CLAIM, {**claim, "spec": spec})
    async with running(namespace, rooms=None, network_policies=True):
        await client.create(SERVING, serving(namespace))
        yield


async def ready(client: Client, namespace: str) -> Manifest:
    found = await client.get(SERVING.path(namespace, "chat"))
    conditions = found.get("status", {}).get("conditions", ())
    return next((one for one in conditions if one["type"] == "Ready"), {"reason": "", "message": ""})


@pytest.mark.parametrize("with_labels", [{}, OUR_LABELS], ids=["foreign", "with our labels"])
@pytest.mark.parametrize("kind", USERS_OWN)
async def test_a_users_object_in_the_place_of_a_servings_child(
    client: Client, namespace: str, kind: str, with_labels: dict[str, str]
) -> None:
    theirs = await client.create(KINDS[kind], users_own(kind, namespace, **with_labels))
    path = KINDS[kind].path(namespace, NAME)

    async def told() -> bool:
        return bool((await ready(client, namespace))["reason"] == "ApplyRefused")

    async def still_theirs() -> bool:
        now = await client.get(path)
        return bool(now["spec"] == theirs["spec"] and now["metadata"]["labels"] == theirs["metadata"]["labels"])

    async with served(client, namespace):
        await until(told)
        message = (await ready(client, namespace))["message"]
        assert f"{kind} {NAME}: the name is taken by an object that is not ours; delete or rename it" in message
        made = [other for other in USERS_OWN if (kind, other) != ("Service", "Deployment")]  # which waits for it
        for other in made:
            await until(lambda other=other: exists(client, KINDS[other].path(namespace, NAME)))  # type: ignore[misc]
        assert await still_theirs()
        await client.request("DELETE", SERVING.path(namespace, "chat"))
        others = [KINDS[other].path(namespace, NAME) for other in made if other != kind]
        for gone in others:
            await until(lambda gone=gone: is_gone(client, gone))  # type: ignore[misc]
        assert await still_theirs()


async def is_gone(client: Client, path: str) -> bool:
    return not await exists(client, path)


async def test_when_the_users_object_is_gone_ours_takes_its_place(
    client: Client, namespace: str, api_server: ControlPlane
) -> None:
    await client.create(SERVICE, users_own("Service", namespace))
    async with served(client, namespace):
        await until(lambda: exists(client, DISRUPTION_BUDGET.path(namespace, NAME)))
        await client.request("DELETE", SERVICE.path(namespace, NAME))
        api_server.kubectl("annotate", "-n", namespace, "llmserving", "chat", "example.com/look=again")
        await until(lambda: exists(client, SERVICE.path(namespace, NAME)))
        service = await client.get(SERVICE.path(namespace, NAME))
        assert service["metadata"]["ownerReferences"][0]["name"] == "chat"


def budget(owner: Manifest) -> Manifest:
    spec = {"maxUnavailable": 1, "selector": SELECTOR}
    return {**child(owner, DISRUPTION_BUDGET.name, NAME, spec=spec), "apiVersion": DISRUPTION_BUDGET.api_version}


def service(owner: Manifest) -> Manifest:
    return child(owner, SERVICE.name, NAME, spec={"selector": {"a": "b"}, "ports": [{"name": "http", "port": 80}]})


def deployment(owner: Manifest) -> Manifest:
    spec = {"selector": SELECTOR, "template": POD}
    return {**child(owner, DEPLOYMENT.name, NAME, spec=spec), "apiVersion": DEPLOYMENT.api_version}


EACH: list[tuple[Kind, Callable[[Manifest], Manifest]]] = [
    (SERVICE, service), (DEPLOYMENT, deployment), (DISRUPTION_BUDGET, budget), (CONFIG_MAP, config_map), (JOB, job),
]  # fmt: skip


class LateWatch:
    """What each step leaves in the cache is up to the test: a watch may be late by any time."""

    def __init__(self, client: Client) -> None:
        self.cache = Cache()
        self._executor = Executor(client, self.cache, lambda *_: None, "test")

    async def apply(self, owner: Manifest, manifest: Manifest) -> None:
        await self._executor.execute(owner, Plan(apply=(manifest,)))


@pytest.mark.parametrize(("kind", "make"), EACH, ids=[kind.name for kind, _ in EACH])
async def test_an_apply_changes_what_we_made_whatever_the_watch_has_told(
    client: Client, namespace: str, kind: Kind, make: Callable[[Manifest], Manifest]
) -> None:
    owner = await client.create(TRAINING, training(namespace))
    await LateWatch(client).apply(owner, make(owner))
    changed = make(owner)
    changed["metadata"]["labels"]["example.com/new"] = "yes"
    await LateWatch(client).apply(owner, changed)  # it knows nothing of the first
    found = await client.get(kind.path(namespace, changed["metadata"]["name"]))
    assert found["metadata"]["labels"]["example.com/new"] == "yes"
    ours = [(entry["manager"], entry["operation"]) for entry in found["metadata"]["managedFields"]
            if entry["manager"] == "llm-operator"]  # fmt: skip
    assert ours == [("llm-operator", "Apply")]


@pytest.mark.parametrize(("kind", "make"), EACH, ids=[kind.name for kind, _ in EACH])
async def test_an_object_that_took_the_place_of_ours_is_left_alone(
    client: Client, namespace: str, kind: Kind, make: Callable[[Manifest], Manifest]
) -> None:
    """Ours was deleted and theirs made, and no watch has told of either."""
    owner = await client.create(TRAINING, training(namespace))
    late, manifest = LateWatch(client), make(owner)
    await late.apply(owner, manifest)
    path = kind.path(namespace, manifest["metadata"]["name"])
    await client.request("DELETE", path, body={"apiVersion": "v1", "kind": "DeleteOptions",
                                               "propagationPolicy": "Background"})  # fmt: skip
    theirs = make(owner)
    del theirs["metadata"]["ownerReferences"]
    theirs["metadata"]["annotations"] = {"example.com/owner": "web"}
    made = await client.create(kind, theirs)
    with pytest.raises(RefusedError, match="the name is taken by an object that is not ours"):
        await late.apply(owner, manifest)
    found: dict[str, Any] = await client.get(path)
    assert found["metadata"]["uid"] == made["metadata"]["uid"]
    assert "ownerReferences" not in found["metadata"]


async def test_a_child_that_is_gone_is_made_anew_though_no_watch_told(client: Client, namespace: str) -> None:
    """The first try learns it, the next one makes it."""
    owner = await client.create(TRAINING, training(namespace))
    late, manifest = LateWatch(client), service(owner)
    await late.apply(owner, manifest)
    await client.request("DELETE", SERVICE.path(namespace, NAME))
    with pytest.raises(Exception, match="409"):
        await late.apply(owner, manifest)
    await late.apply(owner, manifest)
    assert await exists(client, SERVICE.path(namespace, NAME))


async def test_one_refused_apply_keeps_no_other_back(client: Client, namespace: str) -> None:
    owner = await client.create(TRAINING, training(namespace))
    await client.create(SERVICE, users_own("Service", namespace))
    plan = Plan(apply=(service(owner), config_map(owner)), status={"phase": "Running"})
    with pytest.raises(RefusedError, match=f"Service {NAME}"):
        await Executor(client, Cache(), lambda *_: None, "test").execute(owner, plan)
    assert await exists(client, CONFIG_MAP.path(namespace, "chat-config"))
    assert "status" not in await client.get(TRAINING.path(namespace, "chat"))
