"""The controller of LLMApp."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from functools import partial

from llm_operator.api.reasons import AppCondition
from llm_operator.api.validation import load_app
from llm_operator.apps.config_maps import ConfigMaps
from llm_operator.apps.observe import Observed, embedders_of, observe, serving_of
from llm_operator.apps.reconcile import apply_refused, reconcile
from llm_operator.kube.cache import Cache
from llm_operator.kube.client import Client
from llm_operator.kube.fields import at
from llm_operator.kube.kinds import APP, CLAIM, SERVING, Kind
from llm_operator.kube.plan import Key, Manifest, Plan
from llm_operator.kube.poller import Wake
from llm_operator.kube.specs import Specs
from llm_operator.settings import Settings


class AppRoom:
    about = AppCondition.READY.value

    def __init__(self, cache: Cache, client: Client, settings: Settings) -> None:
        self._cache = cache
        cache.index(APP.name, places)
        self._settings = settings
        self._sources = ConfigMaps(client)
        self._specs = Specs(partial(load_app, devices=settings.devices))

    def observe(self, key: Key) -> Observed | None:
        sources = self._sources.follow(key, self._cache.get(key.kind, key.namespace, key.name))
        return observe(self._cache, key, self._settings, self._specs, sources)

    def forget(self, key: Key) -> None:
        self._sources.follow(key, None)

    def reconcile(self, observed: Observed, now: float) -> Plan:
        return reconcile(observed, now)

    def refused(self, observed: Observed, problem: str, now: float) -> Plan:
        return apply_refused(observed, problem, now)

    def wrote(self, key: Key, owner: Manifest, status: Manifest) -> None:
        """Nothing is counted of apps but what objects.py counts."""

    def unseen(self, observed: Observed) -> tuple[tuple[Kind, str], ...]:
        """None: what is there by mistake is found by its name, which follows from what it is."""
        del observed
        return ()

    def wakes(self, kind: str, manifest: Manifest) -> Iterator[Key]:
        """The apps that follow a serving that changed, and those that may wait for a claim, with knowledge or tools."""
        if kind not in (SERVING.name, CLAIM.name):
            return
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        place = claim_place(namespace) if kind == CLAIM.name else serving_place(namespace, name)
        for app in self._cache.at(APP.name, namespace, place):
            yield Key("LLMApp", namespace, app["metadata"]["name"])

    async def run(self, wake: Wake) -> None:
        """Asks for the ConfigMaps of sources; the watches tell all else."""
        await self._sources.run(wake)


def serving_place(namespace: str, name: str) -> Hashable:
    return "serving", namespace, name


def claim_place(namespace: str) -> Hashable:
    return "claim", namespace


def places(app: Manifest) -> Iterator[Hashable]:
    """Under what else the cache finds an app, read from what may be wrong."""
    namespace = app["metadata"]["namespace"]
    for name in {serving_of(app), *embedders_of(app)} - {""}:
        yield serving_place(namespace, name)
    if at(app, "spec", "knowledge") or at(app, "spec", "tools"):
        yield claim_place(namespace)
