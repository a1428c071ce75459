"""What a decision needs to know: what the cache holds, and what was told outside of passes. No decisions are made here.

Nothing is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from llm_operator.api.conditions import seconds_of
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.training_status import LLMTrainingStatus
from llm_operator.api.validation import InvalidSpecError
from llm_operator.kube import labels
from llm_operator.kube.cache import Cache
from llm_operator.kube.kinds import CLAIM, CONFIG_MAP, JOB, POD, SERVICE, TRAINING
from llm_operator.kube.plan import Key, Manifest
from llm_operator.kube.pods import container_state
from llm_operator.training.manifests import CONTAINER
from llm_operator.training.missing import FailedCreates
from llm_operator.training.occupants import occupant
from llm_operator.training.progress import pod_index
from llm_operator.training.pull import Puller
from llm_operator.training.specs import Specs
from llm_operator.training.stages import claims_of
from llm_operator.training.status import is_over
from llm_trainer.protocol import Progress

PODS_SECONDS = 5.0  # in which the Job controller makes the pods, if nothing is against it


@dataclass(frozen=True)
class Observed:
    """Of one training. ``claims`` has those that exist among the ones that the spec names."""

    training: Manifest
    spec: LLMTrainingSpec | InvalidSpecError | None  # what is wrong with it, if anything is; None: it is over
    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    config_maps: tuple[Manifest, ...] = ()
    services: tuple[Manifest, ...] = ()
    claims: frozenset[str] = frozenset()
    occupant: str = ""  # the training that still writes into the run folder which this one would take up
    failed_create: str | None = ""  # why a pod of the attempt under way could not be made; None: not read yet
    progress: Progress | None = None  # what rank 0 told last
    silence: str = ""  # why rank 0 can't be asked now; empty while that isn't sure
    trainer_image: str = ""
    progress_interval: float = 10.0


@dataclass(frozen=True)
class Observer:
    """Reads the cache, and says who is to be asked outside of passes."""

    cache: Cache
    specs: Specs
    puller: Puller
    failed_creates: FailedCreates
    trainer_image: str
    progress_interval: float

    def observe(self, key: Key) -> Observed | None:
        training = self.cache.get(key.kind, key.namespace, key.name)
        status = LLMTrainingStatus.model_validate((training or {}).get("status") or {})
        if training is None or is_over(training, status):
            self.puller.follow(key, None)
            self.failed_creates.follow(key, None)
            return Observed(training, None) if training else None
        pods = tuple(self.cache.children(POD.name, key))
        jobs = tuple(self.cache.children(JOB.name, key))
        word = self.puller.follow(key, first_pod(status, pods))
        spec = self.specs.of(training)
        return Observed(
            training=training,
            spec=spec,
            jobs=jobs,
            pods=pods,
            config_maps=tuple(self.cache.children(CONFIG_MAP.name, key)),
            services=tuple(self.cache.children(SERVICE.name, key)),
            claims=self._existing_claims(key.namespace, spec),
            occupant=self._occupant(training, spec),
            failed_create=self.failed_creates.follow(key, short_of_pods(status, jobs, pods, time.time())),
            progress=word.progress,
            silence=word.silence,
            trainer_image=self.trainer_image,
            progress_interval=self.progress_interval,
        )

    def _occupant(self, training: Manifest, spec: LLMTrainingSpec | InvalidSpecError) -> str:
        if isinstance(spec, InvalidSpecError):
            return ""
        return occupant(training, spec, self.cache.objects(TRAINING.name, training["metadata"]["namespace"]))

    def _existing_claims(self, namespace: str, spec: LLMTrainingSpec | InvalidSpecError) -> frozenset[str]:
        named = [] if isinstance(spec, InvalidSpecError) else claims_of(spec)
        return frozenset(name for name in named if self.cache.get(CLAIM.name, namespace, name))


def short_of_pods(
    status: LLMTrainingStatus, jobs: tuple[Manifest, ...], pods: tuple[Manifest, ...], now: float
) -> Manifest | None:
    """The Job of the attempt that is under way, if it has had the time to make its pods and lacks some."""
    under_way = open_jobs(status)
    for job in jobs:
        metadata, spec = job["metadata"], job["spec"]
        if metadata["name"] not in under_way or spec.get("suspend") or (job.get("status") or {}).get("conditions"):
            continue
        made = sum(job_of(pod) == metadata["name"] for pod in pods)
        if made < spec["completions"] and now - seconds_of(metadata["creationTimestamp"]) >= PODS_SECONDS:
            return job
    return None


def open_jobs(status: LLMTrainingStatus) -> set[str]:
    """Names of the Jobs of attempts that have not ended."""
    return {attempt.job for stage in status.stages for attempt in stage.attempts if attempt.end_time is None}


def first_pod(status: LLMTrainingStatus, pods: tuple[Manifest, ...]) -> Manifest | None:
    """The running pod of rank 0 of the attempt that is under way."""
    jobs = open_jobs(status)
    return next(
        (
            pod
            for pod in pods
            if pod_index(pod) == 0 and job_of(pod) in jobs and container_state(pod, CONTAINER, "running")
        ),
        None,
    )


def job_of(pod: Manifest) -> str:
    return str((pod["metadata"].get("labels") or {}).get("batch.kubernetes.io/job-name", ""))


def attempt_of(manifest: Manifest) -> tuple[str, int]:
    """Stage and number of the attempt that a child belongs to."""
    found: Mapping[str, str] = manifest["metadata"].get("labels") or {}
    number = found.get(labels.ATTEMPT, "")
    return found.get(labels.STAGE, ""), int(number) if number.isdecimal() else 0
