"""kopf: which watches feed the cache and the queue, and what happens at the start and at the end.

Nothing else of kopf is used: no high-level handlers, hence no annotations, no finalizers and no writes of its own.
An index comes before every event handler, so kopf calls no event handler before all kinds have been listed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import kopf
from kopf._core.engines.peering import Identity
from prometheus_client import REGISTRY

from llm_operator import metrics, probes
from llm_operator.kube.cache import Cache
from llm_operator.kube.client import ApiError, Client
from llm_operator.kube.kinds import SERVING, TRAINING, WATCHED, Kind
from llm_operator.kube.login import Connection
from llm_operator.kube.operator import SELECTOR, Operator
from llm_operator.kube.room import Room
from llm_operator.serving.room import ServingRoom
from llm_operator.settings import Settings
from llm_operator.training.room import TrainingRoom

logger = logging.getLogger(__name__)

CRD_LOOK_SECONDS = 5.0


def rooms(cache: Cache, client: Client, settings: Settings) -> Mapping[str, Room]:
    """The controller of each kind."""
    return {TRAINING.name: TrainingRoom(cache, client, settings), SERVING.name: ServingRoom(cache, settings)}


async def run(settings: Settings) -> None:
    """The operator of this process, as the settings want it. See ``serve``."""
    cache, connection = Cache(), await Connection.open()
    client = Client(connection, settings.request_seconds)
    await serve(Operator(settings, connection, client, cache, rooms(cache, client, settings)))


async def serve(operator: Operator) -> None:
    """Until SIGTERM, SIGINT, a lost Lease or a dead watch."""
    await kopf.operator(
        registry=handlers(operator),
        settings=kopf_settings(operator.settings),
        standalone=True,
        clusterwide=not operator.settings.namespaces,
        namespaces=operator.settings.namespaces,
        stop_flag=operator.stop,
        # kopf would ask for the name of the user, and a pod's user has none
        identity=Identity(operator.settings.pod_name),
    )


def kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """Where they differ from kopf's defaults there was a reason: the issues are kopf's."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False  # floods of events (#1258); ours come from plans
    chosen.scanning.disabled = True  # neither CRDs nor namespaces need to be watched
    chosen.queueing.idle_timeout = 1  # a worker per object stays that long: memory
    chosen.networking.request_timeout = settings.request_seconds
    chosen.networking.connect_timeout = 10
    chosen.watching.connect_timeout = 10
    chosen.watching.server_timeout = settings.watch_seconds  # watches can stall silently (#585, #698, #955)
    chosen.watching.client_timeout = settings.watch_seconds + 60
    chosen.persistence.diffbase_storage = NoDiffBase()
    chosen.process.ultimate_exiting_timeout = 30
    for kind in WATCHED:
        if kind.ours:
            chosen.watching.label_selectors[kind.group, kind.version, kind.plural] = SELECTOR
    return chosen


def handlers(operator: Operator) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    resources = AsyncExitStack()

    @kopf.on.startup(registry=registry)
    async def startup(**_: Any) -> None:
        await resources.enter_async_context(listening(operator))
        await wait_for_crds(operator)
        operator.start()

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        await operator.close()
        await resources.aclose()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        await operator.connection.renew()
        session = operator.connection.session(operator.watches.see)
        return kopf.AiohttpSession(server=operator.connection.server, aiohttp_session=session)

    for kind in WATCHED:
        watch(registry, operator, kind)
    return registry


def watch(registry: kopf.OperatorRegistry, operator: Operator, kind: Kind) -> None:
    """The objects of one kind, into the cache and from there into the queue."""
    resource = (kind.group, kind.version, kind.plural)

    @kopf.index(*resource, id=f"{kind.name}-seen", registry=registry)
    async def seen(body: kopf.Body, **_: Any) -> None:
        operator.seen(kind.name, dict(body))

    @kopf.on.event(*resource, id=f"{kind.name}-changed", registry=registry)
    async def changed(event: kopf.RawEvent, **_: Any) -> None:
        if event["type"] == "DELETED":
            operator.deleted(kind.name, dict(event["object"]))
        operator.synced()


@asynccontextmanager
async def listening(operator: Operator) -> AsyncIterator[None]:
    """Probes and metrics."""
    collector = metrics.ObjectsByPhase({kind.plural: Phases(operator.cache, kind.name) for kind in (TRAINING, SERVING)})
    REGISTRY.register(collector)
    try:
        async with (
            probes.serve(
                operator.settings.probe_port,
                probes.probe("/healthz", operator.dead),
                probes.probe("/readyz", operator.unready),
            ),
            probes.serve(operator.settings.metrics_port, probes.METRICS),
        ):
            yield
    finally:
        REGISTRY.unregister(collector)


async def wait_for_crds(operator: Operator) -> None:
    """Until the API server serves both of our kinds: kopf looks for them only once."""
    while True:
        try:
            found = await operator.client.get(TRAINING.path().rpartition("/")[0])
            missing = {TRAINING.plural, SERVING.plural} - {resource["name"] for resource in found["resources"]}
        except ApiError as error:
            missing = {str(error)}
        if not missing:
            return
        logger.warning("waiting for the CustomResourceDefinitions: %s", ", ".join(sorted(missing)))
        await asyncio.sleep(CRD_LOOK_SECONDS)


class Phases:
    """The phase of every cached object of a kind, looked up at each iteration."""

    def __init__(self, cache: Cache, kind: str) -> None:
        self._cache, self._kind = cache, kind

    def __iter__(self) -> Iterator[str]:
        for manifest in self._cache.objects(self._kind):
            yield str((manifest.get("status") or {}).get("phase") or "Pending")


class NoDiffBase(kopf.DiffBaseStorage):
    """Nothing here depends on what changed; kopf would copy every object at every event to find out."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        return
