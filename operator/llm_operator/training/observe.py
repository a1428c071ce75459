"""What a decision needs to know. No decisions are made here.

Read from the cache, from rank 0 and, if pods are missing, from the events.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
from pydantic import ValidationError

from llm_operator.api.conditions import seconds_of
from llm_operator.api.resources import DEFAULT_DEVICES, Devices
from llm_operator.api.training import LLMTrainingStatus
from llm_operator.api.validation import InvalidSpecError, load_training
from llm_operator.kube import labels
from llm_operator.kube.cache import Cache
from llm_operator.kube.client import ApiError, Client
from llm_operator.kube.kinds import CLAIM, CONFIG_MAP, EVENT, JOB, POD, SERVICE
from llm_operator.kube.plan import Key, Manifest
from llm_operator.kube.pods import container_state, without_pod_name
from llm_operator.training.manifests import CONTAINER
from llm_operator.training.progress import pod_index
from llm_operator.training.stages import claims_of
from llm_operator.training.status import is_terminal
from llm_trainer.protocol import PROGRESS_PORT, Progress

PROGRESS_SECONDS = 2.0  # an answer that takes longer is no news
PODS_SECONDS = 5.0  # in which the Job controller makes the pods, if nothing is against it
FAILED_CREATE = "FailedCreate"  # the Job controller's own word
PROGRESS_BYTES = 65_536  # nor is one that is longer: the image is the user's, who knows what answers


@dataclass(frozen=True)
class Observed:
    """Of one training. ``claims`` has those that exist among the ones that the spec names."""

    training: Manifest
    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    config_maps: tuple[Manifest, ...] = ()
    services: tuple[Manifest, ...] = ()
    claims: frozenset[str] = frozenset()
    failed_create: str = ""  # why the Job controller could not make a pod of the attempt that is under way
    progress: Progress | None = None
    trainer_image: str = ""
    progress_interval: float = 10.0
    devices: Devices = DEFAULT_DEVICES


@dataclass
class Observer:
    """Reads the cache; keeps one HTTP session and the last word of every running rank 0."""

    cache: Cache
    client: Client
    trainer_image: str
    progress_interval: float
    devices: Devices = DEFAULT_DEVICES
    _session: aiohttp.ClientSession | None = None
    _told: dict[Key, tuple[float, Progress | None]] = field(default_factory=dict)

    async def observe(self, key: Key) -> Observed | None:
        training = self.cache.get(key.kind, key.namespace, key.name)
        if training is None:
            self._told.pop(key, None)
            return None
        status = LLMTrainingStatus.model_validate(training.get("status") or {})
        if is_terminal(status):
            self._told.pop(key, None)
            return Observed(training)
        pods = tuple(self.cache.children(POD.name, key))
        jobs = tuple(self.cache.children(JOB.name, key))
        return Observed(
            training=training,
            jobs=jobs,
            pods=pods,
            config_maps=tuple(self.cache.children(CONFIG_MAP.name, key)),
            services=tuple(self.cache.children(SERVICE.name, key)),
            claims=self._existing_claims(key.namespace, training),
            failed_create=await self._failed_create(short_of_pods(status, jobs, pods, time.time())),
            progress=await self._progress(key, first_pod(status, pods)),
            trainer_image=self.trainer_image,
            progress_interval=self.progress_interval,
            devices=self.devices,
        )

    def _existing_claims(self, namespace: str, training: Manifest) -> frozenset[str]:
        try:
            named = claims_of(load_training(training.get("spec") or {}, self.devices))
        except InvalidSpecError:
            return frozenset()
        return frozenset(name for name in named if self.cache.get(CLAIM.name, namespace, name))

    async def _failed_create(self, job: Manifest | None) -> str:
        """What the Job controller last said of a pod that it could not make; a Job's own status has no word of it."""
        if job is None:
            return ""
        selector = f"regarding.uid={job['metadata']['uid']},reason={FAILED_CREATE}"
        try:
            found = await self.client.get(EVENT.path(job["metadata"]["namespace"]), {"fieldSelector": selector})
        except ApiError:
            return ""  # an explanation is not worth a pass
        newest: Manifest = max(found["items"], key=last_seen, default={})
        return without_pod_name(newest.get("note", ""))

    async def _progress(self, key: Key, pod: Manifest | None) -> Progress | None:
        """What rank 0 tells, asked for at most once in half an interval; None if it tells nothing."""
        if pod is None or not (address := (pod.get("status") or {}).get("podIP")):
            self._told.pop(key, None)
            return None
        asked, told = self._told.get(key, (0.0, None))
        now = time.monotonic()
        if now - asked < self.progress_interval / 2:
            return told
        told = await self._ask(address)
        self._told[key] = (now, told)
        return told

    async def _ask(self, address: str) -> Progress | None:
        host = f"[{address}]" if ":" in address else address
        self._session = self._session or aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PROGRESS_SECONDS))
        try:
            async with self._session.get(f"http://{host}:{PROGRESS_PORT}/progress", allow_redirects=False) as answer:
                body = bytearray()
                async for chunk in answer.content.iter_chunked(PROGRESS_BYTES):
                    body += chunk
                    if len(body) > PROGRESS_BYTES:
                        return None
                return Progress.model_validate_json(bytes(body))
        except (aiohttp.ClientError, TimeoutError, ValidationError):
            return None


def last_seen(event: Manifest) -> str:
    """The Job controller still writes its events by the old API."""
    return str(event.get("deprecatedLastTimestamp") or event["metadata"]["creationTimestamp"])


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
    return found.get(labels.STAGE, ""), int(found.get(labels.ATTEMPT, "0"))
