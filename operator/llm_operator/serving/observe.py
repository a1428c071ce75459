"""What a decision needs to know of a serving, read from the cache. No decisions are made here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from llm_operator.api.resources import DEFAULT_DEVICES, Devices
from llm_operator.api.serving import LLMServingSpec
from llm_operator.api.validation import InvalidSpecError, load_serving
from llm_operator.kube.cache import Cache
from llm_operator.kube.claims import access_modes
from llm_operator.kube.fields import object_at, objects_at, text_at
from llm_operator.kube.kinds import CLAIM, DEPLOYMENT, DISRUPTION_BUDGET, JOB, NETWORK_POLICY, POD, SERVICE, TRAINING
from llm_operator.kube.network import Network
from llm_operator.kube.plan import Key, Manifest
from llm_operator.kube.pods import container_state, holds
from llm_operator.kube.sightings import Sightings
from llm_operator.kube.specs import Specs, loaded
from llm_operator.serving.annotations import TEMPLATE
from llm_operator.serving.chat_template import UNKNOWN, Word
from llm_operator.serving.fleet import template_metadata
from llm_operator.serving.names import FETCHER
from llm_operator.serving.rollout import no_room
from llm_operator.settings import Settings
from llm_trainer.protocol import Progress

Ask = Callable[[Key, Manifest | None], Progress | None]


def nobody(_key: Key, _pod: Manifest | None) -> None:
    """Asks none."""


@dataclass(frozen=True)
class Observed:
    """``trainings`` are those that the spec names and that exist, by name; ``claims`` are those of the namespace.

    ``without_room`` has the seconds for which this operator has seen that a pod, by its uid, finds no room.
    """

    serving: Manifest
    trainings: Mapping[str, Manifest] = field(default_factory=dict)
    deployments: tuple[Manifest, ...] = ()
    services: tuple[Manifest, ...] = ()
    disruption_budgets: tuple[Manifest, ...] = ()
    network_policies: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()  # of the Deployment
    jobs: tuple[Manifest, ...] = ()  # that fetch
    fetching: tuple[Manifest, ...] = ()  # their pods
    asked: Manifest | None = None  # the pod of them that is asked how far it is
    fetch_progress: Progress | None = None  # its answer
    ages: Mapping[str, float] = field(default_factory=dict)  # seconds for which this operator has seen facts
    access_modes: Mapping[str, frozenset[str]] = field(default_factory=dict)  # of the claim of spec.modelCache
    without_room: Mapping[str, float] = field(default_factory=dict)
    claims: frozenset[str] = frozenset()
    chat_template: Word = UNKNOWN  # what its ConfigMap holds
    serving_image: str = ""
    trainer_image: str = ""  # which has the launcher of llm_server
    pull_secrets: tuple[str, ...] = ()  # of every pod, beside the user's
    network: Network | None = None  # None: no NetworkPolicies are made
    surge_timeout: float = 60.0  # seconds
    rollout_interval: float = 0.0  # seconds, from one rollout of a result to the next
    template_age: float = 0.0  # seconds for which this operator has seen the template that is applied
    loaded: LLMServingSpec | InvalidSpecError | None = None  # the spec, if it was validated before
    devices: Devices = DEFAULT_DEVICES

    @property
    def spec(self) -> LLMServingSpec | InvalidSpecError:
        """Or what is wrong with it."""
        if self.loaded is not None:
            return self.loaded
        return loaded(partial(load_serving, devices=self.devices), self.serving.get("spec") or {})

    @property
    def deployment(self) -> Manifest:
        """Empty if there is none."""
        return self.deployments[0] if self.deployments else {}


def observe(
    cache: Cache,
    key: Key,
    settings: Settings,
    specs: Specs[LLMServingSpec],
    chat_template: Word,
    sightings: Sightings,
    now: float,
    ask: Ask = nobody,
) -> Observed | None:
    """``now`` is in seconds of the clock of ``sightings``; ``ask`` tells the last word of a pod, which is asked."""
    serving = cache.get(key.kind, key.namespace, key.name)
    if serving is None:
        return None
    living, deployments = tuple(cache.children(POD.name, key)), tuple(cache.children(DEPLOYMENT.name, key))
    pods = tuple(pod for pod in living if not is_of_job(pod))
    jobs, fetching = tuple(cache.children(JOB.name, key)), tuple(pod for pod in living if is_of_job(pod))
    facts = [*uids_without_room(pods), *template_facts(deployments), *map(job_fact, jobs)]
    ages = sightings.ages(key, facts, now)
    asked = next((pod for pod in fetching if container_state(pod, FETCHER, "running") is not None), None)
    named = {name: cache.get(TRAINING.name, key.namespace, name) for name in referenced_trainings(serving)}
    return Observed(
        serving=serving,
        trainings={name: training for name, training in named.items() if training},
        deployments=deployments,
        services=tuple(cache.children(SERVICE.name, key)),
        disruption_budgets=tuple(cache.children(DISRUPTION_BUDGET.name, key)),
        network_policies=tuple(cache.children(NETWORK_POLICY.name, key)),
        pods=pods,
        jobs=jobs,
        fetching=fetching,
        asked=asked,
        fetch_progress=ask(key, asked),
        ages=ages,
        access_modes=modes_of_cache(cache, key, serving),
        without_room=ages,
        claims=frozenset(claim["metadata"]["name"] for claim in cache.objects(CLAIM.name, key.namespace)),
        chat_template=chat_template,
        serving_image=settings.serving_image,
        trainer_image=settings.trainer_image,
        pull_secrets=settings.child_image_pull_secrets,
        network=Network.of(settings.network_policies, settings.pod_namespace),
        surge_timeout=settings.surge_timeout_seconds,
        rollout_interval=settings.rollout_interval_seconds,
        template_age=min((ages[fact] for fact in template_facts(deployments)), default=0.0),
        loaded=specs.of(serving),
        devices=settings.devices,
    )


def uids_without_room(pods: Iterable[Manifest]) -> list[str]:
    return [pod["metadata"]["uid"] for pod in pods if no_room(pod)]


def is_of_job(pod: Manifest) -> bool:
    return any(owner.get("kind") == JOB.name for owner in pod["metadata"].get("ownerReferences", ()))


def job_fact(job: Manifest) -> str:
    """That a Job is over, or not."""
    ended = holds(job, "Complete") or holds(job, "Failed")
    return f"job {job['metadata']['uid']} {'over' if ended else 'goes on'}"


def modes_of_cache(cache: Cache, key: Key, serving: Manifest) -> dict[str, frozenset[str]]:
    """Of a spec that may be wrong."""
    name = text_at(serving, "spec", "modelCache", "persistentVolumeClaim", "claimName")
    claim = cache.get(CLAIM.name, key.namespace, name) if name else None
    return {claim["metadata"]["name"]: frozenset(access_modes(claim))} if claim else {}


def template_facts(deployments: Iterable[Manifest]) -> list[str]:
    """The templates that are applied."""
    marks = ((template_metadata(found).get("annotations") or {}).get(TEMPLATE) for found in deployments)
    return [f"template {mark}" for mark in marks if mark]


def referenced_trainings(serving: Manifest) -> set[str]:
    """The names of the trainings that a serving follows, whatever else its spec says, right or wrong."""
    sources = [object_at(serving, "spec", "model"), *objects_at(serving, "spec", "adapters")]
    return {text_at(source, "training", "name") for source in sources} - {""}
