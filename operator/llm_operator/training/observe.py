"""What a decision needs to know: what the cache holds, and what was told outside of passes. No decisions are made here.

Nothing is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.training_status import LLMTrainingStatus
from llm_operator.api.validation import InvalidSpecError
from llm_operator.kube import labels
from llm_operator.kube.cache import Cache
from llm_operator.kube.fields import at
from llm_operator.kube.kinds import CLAIM, CONFIG_MAP, JOB, NETWORK_POLICY, POD, SERVICE, TRAINING
from llm_operator.kube.network import Network
from llm_operator.kube.plan import Key, Manifest
from llm_operator.kube.pods import container_state, held_up, is_leaving, names_claim
from llm_operator.kube.pull import Puller
from llm_operator.kube.sightings import Sightings
from llm_operator.kube.specs import Specs
from llm_operator.training.departed import Departed
from llm_operator.training.gang import (
    attempt_of,
    failed_fact,
    job_condition,
    job_of,
    over_fact,
    pod_facts,
    pod_index,
    short_fact,
    starting_fact,
    under_way_fact,
    unknown_fact,
    vanished_fact,
)
from llm_operator.training.manifests import CONTAINER
from llm_operator.training.missing import Troubles
from llm_operator.training.occupants import Tenant, occupant
from llm_operator.training.places import folder_place, places
from llm_operator.training.stages import claims_of
from llm_operator.training.status import is_over
from llm_operator.training.waiting import NO_TROUBLE, START_SECONDS, Trouble
from llm_trainer.protocol import Progress

PUBLISHING = (JOB, NETWORK_POLICY)
PODS_SECONDS = 5.0  # in which the Job controller makes the pods, if nothing is against it


@dataclass(frozen=True)
class Observed:
    """Of one training. ``claims`` has those that exist among the ones that the spec names.

    ``ages`` has the seconds for which this operator has seen each fact that a decision waits for (``gang.py``).
    """

    training: Manifest
    spec: LLMTrainingSpec | InvalidSpecError | None  # what is wrong with it, if anything is; None: it is over
    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    config_maps: tuple[Manifest, ...] = ()
    services: tuple[Manifest, ...] = ()
    network_policies: tuple[Manifest, ...] = ()
    claims: Mapping[str, Manifest] = field(default_factory=dict)
    occupant: str = ""  # the training that has the run folder before this one, which would take it up
    departed: tuple[Manifest, ...] = ()  # pods of the newest attempts that were deleted, as they were last seen
    trouble: Trouble | None = NO_TROUBLE  # what events say of what may be in the way; None: not read yet
    ages: Mapping[str, float] = field(default_factory=dict)
    progress: Progress | None = None  # what rank 0 told last
    silence: str = ""  # why rank 0 can't be asked now; empty while that isn't sure
    trainer_image: str = ""
    pull_secrets: tuple[str, ...] = ()
    network: Network | None = None  # None: no NetworkPolicies are made
    progress_interval: float = 10.0
    publishes: LLMTrainingSpec | None = None  # a spec that can work, also when all is over; None: nothing is decided
    publishing: tuple[Manifest, ...] = ()  # Jobs and NetworkPolicies that bring results elsewhere; none are children
    publishing_pods: tuple[Manifest, ...] = ()

    @property
    def children(self) -> tuple[Manifest, ...]:
        """All that was made for attempts, but their pods."""
        return (*self.jobs, *self.services, *self.network_policies, *self.config_maps)


@dataclass(frozen=True)
class Observer:
    """Reads the cache, and says who is to be asked outside of passes."""

    cache: Cache
    specs: Specs[LLMTrainingSpec]
    puller: Puller
    troubles: Troubles
    departed: Departed
    trainer_image: str
    progress_interval: float
    pull_secrets: tuple[str, ...] = ()
    network: Network | None = None
    sightings: Sightings = field(default_factory=Sightings)
    tenants: dict[Key, tuple[str, Tenant]] = field(default_factory=dict)  # of shared run folders, by resourceVersion
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.cache.index(TRAINING.name, places)

    def observe(self, key: Key) -> Observed | None:
        training = self.cache.get(key.kind, key.namespace, key.name)
        if training is None:
            return None
        status = LLMTrainingStatus.model_validate(training.get("status") or {})
        over = is_over(training, status)
        spec = None if over else self.specs.of(training)
        kinds = (JOB, POD, CONFIG_MAP, SERVICE, NETWORK_POLICY)
        every = {kind.name: tuple(self.cache.children(kind.name, key)) for kind in kinds}
        children = {kind: tuple(child for child in found if not publishes(child)) for kind, found in every.items()}
        jobs, pods = children[JOB.name], children[POD.name]
        newest = {stage.attempts[-1].job for stage in status.stages if stage.attempts}
        others = (*children[CONFIG_MAP.name], *children[SERVICE.name], *children[NETWORK_POLICY.name])
        ages = self.sightings.ages(key, facts(status, jobs, pods, others), self.clock())
        claims = self._existing_claims(key.namespace, spec)
        word = self.puller.follow(key, None if over else first_pod(status, pods))
        return Observed(
            training=training,
            spec=spec,
            jobs=jobs,
            pods=pods,
            config_maps=children[CONFIG_MAP.name],
            services=children[SERVICE.name],
            network_policies=children[NETWORK_POLICY.name],
            claims=claims,
            occupant=self._occupant(training, spec),
            departed=tuple(pod for pod in self.departed.of(self.cache.job_uids(key)) if job_of(pod) in newest),
            trouble=self.troubles.follow(key, None if over else suspect(status, jobs, pods, claims, ages)),
            ages=ages,
            progress=word.progress,
            silence=word.silence,
            trainer_image=self.trainer_image,
            pull_secrets=self.pull_secrets,
            network=self.network,
            progress_interval=self.progress_interval,
            publishes=self._publishes(training, status, spec),
            publishing=tuple(child for kind in PUBLISHING for child in every[kind.name] if publishes(child)),
            publishing_pods=tuple(filter(publishes, every[POD.name])),
        )

    def forget(self, key: Key) -> None:
        """Nobody is asked for it any more."""
        self.puller.follow(key, None)
        self.troubles.follow(key, None)
        self.sightings.forget(key)
        self.tenants.pop(key, None)

    def _publishes(
        self, training: Manifest, status: LLMTrainingStatus, spec: LLMTrainingSpec | InvalidSpecError | None
    ) -> LLMTrainingSpec | None:
        """Results go out when all is over, too."""
        if spec is None and (at(training, "spec", "publish") or status.publications):
            spec = self.specs.of(training)
        return spec if isinstance(spec, LLMTrainingSpec) else None

    def _occupant(self, training: Manifest, spec: LLMTrainingSpec | InvalidSpecError | None) -> str:
        if not isinstance(spec, LLMTrainingSpec) or spec.resume_from is None:
            return ""
        namespace = training["metadata"]["namespace"]
        found = self.cache.at(TRAINING.name, namespace, folder_place(namespace, spec.resume_from.uri))

        def pods_of(tenant: Tenant) -> list[Manifest]:
            return self.cache.children(POD.name, Key("LLMTraining", namespace, tenant.name))

        return occupant(Tenant.of(training), map(self._tenant, found), pods_of)

    def _tenant(self, training: Manifest) -> Tenant:
        """Read once for each state of a training: any number of them may want one folder."""
        metadata = training["metadata"]
        key = Key("LLMTraining", metadata["namespace"], metadata["name"])
        version, known = self.tenants.get(key, ("", None))
        if known is None or version != metadata["resourceVersion"]:
            known = Tenant.of(training)
            self.tenants[key] = metadata["resourceVersion"], known
        return known

    def _existing_claims(self, namespace: str, spec: LLMTrainingSpec | InvalidSpecError | None) -> dict[str, Manifest]:
        named = claims_of(spec) if isinstance(spec, LLMTrainingSpec) else []
        found = ((name, self.cache.get(CLAIM.name, namespace, name)) for name in named)
        return {name: claim for name, claim in found if claim}


def publishes(child: Manifest) -> bool:
    """Whether it brings a result elsewhere, so that it is of no attempt."""
    return labels.PUBLICATION in (child["metadata"].get("labels") or {})


def facts(
    status: LLMTrainingStatus, jobs: Sequence[Manifest], pods: Sequence[Manifest], others: Sequence[Manifest]
) -> Iterator[str]:
    """Those whose age a decision may ask for. ``others`` are ConfigMaps, Services and NetworkPolicies."""
    attempts = {(stage.name, attempt.number): attempt for stage in status.stages for attempt in stage.attempts}
    yield from (unknown_fact(child) for child in (*jobs, *others) if attempt_of(child) not in attempts)
    yield from (failed_fact(job) for job in jobs if job_condition(job, "Failed"))
    yield from pod_facts(pods)
    for stage in status.stages:
        yield from (
            over_fact(attempt.job) if attempt.end_time else under_way_fact(attempt.job) for attempt in stage.attempts
        )
    there = {job["metadata"]["name"] for job in jobs if not is_leaving(job)}
    yield from (vanished_fact(job) for job in open_jobs(status) - there)
    if short := short_of_pods(status, jobs, pods):
        yield short_fact(short["metadata"]["name"])


def suspect(
    status: LLMTrainingStatus,
    jobs: Sequence[Manifest],
    pods: Sequence[Manifest],
    claims: Mapping[str, Manifest],
    ages: Mapping[str, float],
) -> Manifest | None:
    """Whose events tell why the attempt under way does not start: its Job, one of its pods, or a claim."""
    short = short_of_pods(status, jobs, pods)
    if short and ages.get(short_fact(short["metadata"]["name"]), 0.0) >= PODS_SECONDS:
        return short
    under_way = open_jobs(status)
    for pod in pods:
        if job_of(pod) not in under_way or is_leaving(pod):
            continue
        held = held_up(pod, CONTAINER)
        if held and names_claim(held):
            return next((claim for claim in claims.values() if is_unbound(claim)), None)
        scheduled = (pod.get("spec") or {}).get("nodeName")
        if held is None and scheduled and ages.get(starting_fact(pod), 0.0) >= START_SECONDS:
            return pod
    return None


def is_unbound(claim: Manifest) -> bool:
    return (claim.get("status") or {}).get("phase") != "Bound"


def short_of_pods(status: LLMTrainingStatus, jobs: Sequence[Manifest], pods: Sequence[Manifest]) -> Manifest | None:
    """The Job of the attempt that is under way, if it lacks pods and is to make them."""
    under_way = open_jobs(status)
    for job in jobs:
        metadata, spec = job["metadata"], job["spec"]
        if metadata["name"] not in under_way or spec.get("suspend") or (job.get("status") or {}).get("conditions"):
            continue
        if sum(job_of(pod) == metadata["name"] for pod in pods) < spec.get("completions", 1):
            return job
    return None


def open_jobs(status: LLMTrainingStatus) -> set[str]:
    """Names of the Jobs of attempts that have not ended."""
    return {attempt.job for stage in status.stages for attempt in stage.attempts if attempt.end_time is None}


def missing_jobs(observed: Observed) -> set[str]:
    """Of attempts that have not ended."""
    stages = (observed.training.get("status") or {}).get("stages") or ()
    attempts = (attempt for stage in stages for attempt in stage.get("attempts") or ())
    there = {job["metadata"]["name"] for job in observed.jobs}
    return {attempt["job"] for attempt in attempts if not attempt.get("endTime")} - there


def first_pod(status: LLMTrainingStatus, pods: tuple[Manifest, ...]) -> Manifest | None:
    """The running pod of rank 0 of the attempt that is under way."""
    jobs = open_jobs(status)
    return next(
        (
            pod
            for pod in pods
            if pod_index(pod) == 0
            and job_of(pod) in jobs
            and not is_leaving(pod)
            and container_state(pod, CONTAINER, "running") is not None
        ),
        None,
    )
