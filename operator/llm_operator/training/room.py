"""The controller of LLMTraining."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial

from llm_operator.api.reasons import TrainingCondition
from llm_operator.api.validation import load_training
from llm_operator.kube.cache import Cache, controller_of
from llm_operator.kube.client import Client
from llm_operator.kube.kinds import CLAIM, JOB, POD, TRAINING, Kind
from llm_operator.kube.network import Network
from llm_operator.kube.plan import Key, Manifest, Plan
from llm_operator.kube.poller import Wake
from llm_operator.kube.pull import Puller
from llm_operator.kube.specs import Specs
from llm_operator.settings import Settings
from llm_operator.training.accounts import Accounts
from llm_operator.training.departed import Departed
from llm_operator.training.missing import Troubles
from llm_operator.training.observe import Observed, Observer, missing_jobs
from llm_operator.training.places import claim_place
from llm_operator.training.reconcile import apply_refused, reconcile


class TrainingRoom:
    about = TrainingCondition.RUNNING.value

    def __init__(self, cache: Cache, client: Client, settings: Settings) -> None:
        self._cache = cache
        interval = settings.progress_interval_seconds
        self._puller = Puller(cache, interval)
        self._troubles = Troubles(cache, client)
        self._departed = Departed()
        specs = Specs(partial(load_training, devices=settings.devices))
        self._accounts = Accounts(specs)
        self._observer = Observer(
            cache, specs, self._puller, self._troubles, self._departed, settings.trainer_image, interval,
            settings.child_image_pull_secrets, Network.of(settings.network_policies, settings.pod_namespace),
        )  # fmt: skip

    def observe(self, key: Key) -> Observed | None:
        return self._observer.observe(key)

    def forget(self, key: Key) -> None:
        self._observer.forget(key)
        self._accounts.forget(key)

    def reconcile(self, observed: Observed, now: float) -> Plan:
        return reconcile(observed, now)

    def refused(self, observed: Observed, problem: str, now: float) -> Plan:
        return apply_refused(observed, problem, now)

    def wrote(self, key: Key, owner: Manifest, status: Manifest) -> None:
        self._accounts.see(key, owner, status, time.monotonic())

    def unseen(self, observed: Observed) -> list[tuple[Kind, str]]:
        """The Jobs of open attempts: one that is gone for good costs a restart."""
        return [] if observed.spec is None else [(JOB, name) for name in missing_jobs(observed)]

    def wakes(self, kind: str, manifest: Manifest) -> Iterator[Key]:
        """A claim that appears, or is another one, wakes the trainings of its namespace that wait for one."""
        if kind == POD.name:
            self._remember_if_gone(manifest)  # its training is awake already
        if kind != CLAIM.name:
            return
        namespace = manifest["metadata"]["namespace"]
        for training in self._cache.at(TRAINING.name, namespace, claim_place(namespace)):
            yield Key("LLMTraining", namespace, training["metadata"]["name"])

    def _remember_if_gone(self, pod: Manifest) -> None:
        """Only of a Job of ours: a label makes no child."""
        metadata, job = pod["metadata"], controller_of(pod)
        owner = self._cache.owner(pod)
        if owner is None or owner.kind != TRAINING.name or not isinstance(job, str):
            return
        there = self._cache.get(POD.name, metadata["namespace"], metadata["name"])
        if there is None or there["metadata"]["uid"] != metadata["uid"]:
            self._departed.remember(job, pod)

    async def run(self, wake: Wake) -> None:
        """Asks rank 0 for its progress, and the events for why pods are missing or don't start."""
        async with asyncio.TaskGroup() as duties:
            duties.create_task(self._puller.run(wake))
            duties.create_task(self._troubles.run(wake))
