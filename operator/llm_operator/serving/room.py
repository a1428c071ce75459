"""The controller of LLMServing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from llm_operator.api.reasons import Reason, ServingCondition
from llm_operator.api.validation import load_serving
from llm_operator.kube.cache import Cache
from llm_operator.kube.client import Client
from llm_operator.kube.kinds import CLAIM, SERVING, TRAINING, Kind
from llm_operator.kube.plan import Key, Manifest, Plan
from llm_operator.kube.poller import Wake
from llm_operator.kube.sightings import Sightings
from llm_operator.kube.specs import Specs
from llm_operator.serving.chat_template import ChatTemplates
from llm_operator.serving.observe import Observed, observe, referenced_trainings
from llm_operator.serving.reconcile import apply_refused, reconcile
from llm_operator.settings import Settings


def waits_for_claim(serving: Manifest) -> bool:
    """Or may have been told of one that is gone by now."""
    status = serving.get("status") or {}
    found = (status.get("conditions"), status.get("adapters"))
    told = [one for ones in found if isinstance(ones, list) for one in ones if isinstance(one, dict)]
    return not told or any(one.get("reason") == Reason.CLAIM_NOT_FOUND for one in told)


class ServingRoom:
    about = ServingCondition.READY.value

    def __init__(self, cache: Cache, client: Client, settings: Settings) -> None:
        self._cache = cache
        self._settings = settings
        self._chat_templates = ChatTemplates(client)
        self._sightings = Sightings()
        self._specs = Specs(partial(load_serving, devices=settings.devices))

    def observe(self, key: Key) -> Observed | None:
        word = self._chat_templates.follow(key, self._cache.get(key.kind, key.namespace, key.name))
        return observe(self._cache, key, self._settings, self._specs, word, self._sightings, time.monotonic())

    def forget(self, key: Key) -> None:
        self._chat_templates.follow(key, None)
        self._sightings.forget(key)

    def reconcile(self, observed: Observed, now: float) -> Plan:
        return reconcile(observed, now)

    def refused(self, observed: Observed, problem: str, now: float) -> Plan:
        return apply_refused(observed, problem, now)

    def unseen(self, observed: Observed) -> tuple[tuple[Kind, str], ...]:
        """None: what is there by mistake is applied once more."""
        del observed
        return ()

    def wakes(self, kind: str, manifest: Manifest) -> Iterator[Key]:
        """The servings that follow a training that changed, and those that may wait for a claim."""
        if kind not in (TRAINING.name, CLAIM.name):
            return
        metadata = manifest["metadata"]
        for serving in self._cache.objects(SERVING.name, metadata["namespace"]):
            if waits_for_claim(serving) if kind == CLAIM.name else metadata["name"] in referenced_trainings(serving):
                yield Key("LLMServing", metadata["namespace"], serving["metadata"]["name"])

    async def run(self, wake: Wake) -> None:
        """Asks for the ConfigMaps of chat templates; the watches tell all else."""
        await self._chat_templates.run(wake)
