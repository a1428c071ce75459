"""kopf runs the process: signals, the order of start and end, and an end when any part of it dies.

Nothing else of kopf is used. It has no handler of any resource, hence it watches nothing and writes nothing; see
``kube.reflector`` for the watches.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import kopf
from kopf._core.engines.peering import Identity
from prometheus_client import REGISTRY

from llm_operator import objects, probes
from llm_operator.api.common import build_models
from llm_operator.apps.room import AppRoom
from llm_operator.kube.cache import Cache
from llm_operator.kube.client import Client
from llm_operator.kube.kinds import APP, SERVING, TRAINING
from llm_operator.kube.login import Connection
from llm_operator.kube.operator import Operator
from llm_operator.kube.room import Room
from llm_operator.serving.room import ServingRoom
from llm_operator.settings import Settings
from llm_operator.training.room import TrainingRoom


def rooms(cache: Cache, client: Client, settings: Settings) -> Mapping[str, Room]:
    """The controller of each kind."""
    return {
        TRAINING.name: TrainingRoom(cache, client, settings),
        SERVING.name: ServingRoom(cache, client, settings),
        APP.name: AppRoom(cache, client, settings),
    }


async def run(settings: Settings) -> None:
    """The operator of this process, as the settings want it. See ``serve``."""
    cache, connection = Cache(), await Connection.open()
    client = Client(connection, settings.request_seconds)
    await serve(Operator(settings, connection, client, cache, rooms(cache, client, settings)))


async def serve(operator: Operator) -> None:
    """Until SIGTERM, SIGINT, a lost Lease or a dead watch."""
    build_models()
    await kopf.operator(
        registry=handlers(operator),
        settings=kopf_settings(operator.settings),
        standalone=True,
        clusterwide=True,  # of what it watches, which is nothing
        stop_flag=operator.stop,
        # kopf would ask for the name of the user, and a pod's user has none
        identity=Identity(operator.settings.pod_name),
    )


def kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False  # its log as events, on every object
    chosen.scanning.disabled = True  # neither CRDs nor namespaces need to be watched
    chosen.networking.request_timeout = settings.request_seconds
    chosen.networking.connect_timeout = 10
    chosen.process.ultimate_exiting_timeout = 30
    return chosen


def handlers(operator: Operator) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    resources = AsyncExitStack()

    @kopf.on.startup(registry=registry)
    async def startup(**_: Any) -> None:
        await resources.enter_async_context(listening(operator))
        operator.start()

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        await operator.close()
        await resources.aclose()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        await operator.connection.renew()
        return kopf.AiohttpSession(server=operator.connection.server, aiohttp_session=operator.connection.session())

    return registry


@asynccontextmanager
async def listening(operator: Operator) -> AsyncIterator[None]:
    """Probes and metrics."""
    collectors = objects.counts(operator.cache)
    for collector in collectors:
        REGISTRY.register(collector)
    try:
        async with (
            probes.serve(
                operator.settings.probe_port,
                probes.probe("/healthz", operator.dead),
                probes.probe("/readyz", operator.unready, notes=operator.unserved),
            ),
            probes.serve(operator.settings.metrics_port, probes.metrics()),
        ):
            yield
    finally:
        for collector in collectors:
            REGISTRY.unregister(collector)
