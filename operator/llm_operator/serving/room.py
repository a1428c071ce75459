"""The controller of LLMServing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial

from llm_operator.api.reasons import ServingCondition
from llm_operator.api.validation import load_serving
from llm_operator.kube.cache import Cache
from llm_operator.kube.client import Client
from llm_operator.kube.kinds import CLAIM, SERVING, TRAINING, Kind
from llm_operator.kube.plan import Key, Manifest, Plan
from llm_operator.kube.poller import Wake
from llm_operator.kube.pull import Puller
from llm_operator.kube.sightings import Sightings
from llm_operator.kube.specs import Specs
from llm_operator.serving.chat_template import ChatTemplates
from llm_operator.serving.observe import Observed, observe
from llm_operator.serving.places import claim_place, places, training_place
from llm_operator.serving.reconcile import apply_refused, reconcile
from llm_operator.serving.startup import Startups
from llm_operator.settings import Settings
from llm_trainer.protocol import Progress


class ServingRoom:
    about = ServingCondition.READY.value

    def __init__(self, cache: Cache, client: Client, settings: Settings) -> None:
        self._cache = cache
        cache.index(SERVING.name, places)
        self._settings = settings
        self._chat_templates = ChatTemplates(client)
        self._puller = Puller(cache, settings.progress_interval_seconds, "fetching")
        self._startups = Startups(cache)
        self._sightings = Sightings()
        self._specs = Specs(partial(load_serving, devices=settings.devices))

    def observe(self, key: Key) -> Observed | None:
        word = self._chat_templates.follow(key, self._cache.get(key.kind, key.namespace, key.name))
        now = time.monotonic()
        asks = self._ask, self._startups.follow
        return observe(self._cache, key, self._settings, self._specs, word, self._sightings, now, *asks)

    def _ask(self, key: Key, pod: Manifest | None) -> Progress | None:
        return self._puller.follow(key, pod).progress

    def forget(self, key: Key) -> None:
        self._chat_templates.follow(key, None)
        self._puller.follow(key, None)
        self._startups.follow(key, None)
        self._sightings.forget(key)

    def reconcile(self, observed: Observed, now: float) -> Plan:
        return reconcile(observed, now)

    def refused(self, observed: Observed, problem: str, now: float) -> Plan:
        return apply_refused(observed, problem, now)

    def wrote(self, key: Key, owner: Manifest, status: Manifest) -> None:
        """Nothing is counted of servings but what objects.py counts."""

    def unseen(self, observed: Observed) -> tuple[tuple[Kind, str], ...]:
        """None: what is there by mistake is applied once more."""
        del observed
        return ()

    def wakes(self, kind: str, manifest: Manifest) -> Iterator[Key]:
        """The servings that follow a training that changed, and those that may wait for a claim."""
        if kind not in (TRAINING.name, CLAIM.name):
            return
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        place = claim_place(namespace) if kind == CLAIM.name else training_place(namespace, name)
        for serving in self._cache.at(SERVING.name, namespace, place):
            yield Key("LLMServing", namespace, serving["metadata"]["name"])

    async def run(self, wake: Wake) -> None:
        """Asks for ConfigMaps of chat templates, pods that fetch for their progress, and pods that have started for
        how long it took; the watches tell all else.
        """
        async with asyncio.TaskGroup() as duties:
            duties.create_task(self._chat_templates.run(wake))
            duties.create_task(self._puller.run(wake))
            duties.create_task(self._startups.run(wake))
