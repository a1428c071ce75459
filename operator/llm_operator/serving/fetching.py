"""What a serving has from hubs and buckets: which revision its pods are given, and how its Job stands. Pure.

A Job looks what there is and, where the model cache is a claim, fetches it: once for all pods, and before any GPU is
taken. What it has told stands in the status. Later Jobs and all pods are held to that revision, unless a new one is
asked for (`refreshIntervalSeconds`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from llm_operator.api.quantities import amount
from llm_operator.api.reasons import Reason
from llm_operator.api.serving import LLMServingSpec, LLMServingStatus, ServedResult, ServingInput
from llm_operator.kube.claims import ONE_NODE, ONE_POD, on_one_node
from llm_operator.kube.plan import Delete, Manifest
from llm_operator.kube.pods import (
    condition_of,
    container_state,
    container_status,
    held_up,
    holds,
    is_leaving,
    last_line,
    seconds_between,
    where,
)
from llm_operator.kube.templates import digest_of
from llm_operator.serving import names
from llm_operator.serving.observe import Observed, job_fact
from llm_trainer.config import is_remote
from llm_trainer.protocol import FetchedInput, Termination

FORMAT = 1  # of what a Job leaves; another one is another Job
RETRY_SECONDS = 600.0  # after a Job that failed: a Secret, or a right, may have been corrected
UNHEARD_SECONDS = 30.0  # for the last word of a Job that is complete, which comes by another watch


@dataclass(frozen=True)
class Fetch:
    """One URI. ``there``: pods may be given ``said.revision``; else ``said`` tells why there is none.

    ``wait``: seconds until its Job is over for good and another one is made; 0: now; None: never.
    """

    field: str  # where the spec names it first
    job_name: str
    job: Manifest | None
    said: ServingInput
    makes: bool = False  # its Job is to be there
    there: bool = False
    held_to: str = ""  # a Job that is made now
    wait: float | None = None

    @property
    def uri(self) -> str:
        return self.said.uri


@dataclass(frozen=True)
class Problem:
    """Why nothing is fetched."""

    reason: Reason
    message: str


def remote_uris(spec: LLMServingSpec) -> dict[str, str]:
    """Each once, with the field that names it first."""
    named = [("spec.model.uri", spec.model.uri)]
    named += [(f"spec.adapters[{index}].uri", adapter.uri) for index, adapter in enumerate(spec.adapters)]
    found: dict[str, str] = {}
    for field, uri in named:
        if uri and is_remote(uri):
            found.setdefault(uri, field)
    return found


def allows_pickle(spec: LLMServingSpec, uri: str) -> bool:
    adapters = any(adapter.allow_pickle for adapter in spec.adapters if adapter.uri == uri)
    return adapters or (spec.model.uri == uri and spec.model.allow_pickle)


def fetches_of(observed: Observed, spec: LLMServingSpec, old: LLMServingStatus) -> tuple[Fetch, ...]:
    before = {one.uri: one for one in old.inputs}
    problem = cache_problem(observed, spec)
    made = tuple(
        fetch_of(observed, spec, field, uri, before.get(uri), problem) for uri, field in remote_uris(spec).items()
    )
    small = too_small(spec, made)
    told = {"reason": str(small.reason), "message": small.message} if small else {}
    return tuple(replace(one, there=False, said=one.said.model_copy(update=told)) for one in made) if small else made


def fetch_of(
    observed: Observed,
    spec: LLMServingSpec,
    field: str,
    uri: str,
    before: ServingInput | None,
    problem: Problem | None,
) -> Fetch:
    name = job_name(observed.serving, spec, uri)
    job = next((job for job in observed.jobs if job["metadata"]["name"] == name and not is_leaving(job)), None)
    known = before if before and before.revision else None
    there = known is not None and known.job == name
    refresh = spec.model_cache.refresh_interval_seconds if spec.model_cache else None
    held_to = known.revision or "" if known and refresh is None else ""
    word = word_of(pods_of(observed, job)) if job and holds(job, "Complete") else None
    if word and job:
        into_claim = spec.model_cache is not None and spec.model_cache.persistent_volume_claim is not None
        known, there = found(uri, name, word, seconds_of_end(pods_of(observed, job)) if into_claim else None), True
    reason, message = problem.reason if problem else Reason.FETCHING, problem.message if problem else ""
    if job and not problem:
        secrets = [each.secret_name for each in spec.credentials]
        reason, message = progress(observed, job, retry_seconds(refresh), secrets)
    if known and there and not problem and reason != Reason.FETCH_FAILED:
        reason, message = Reason.FETCHED, f"revision {known.revision}"
    base = known or ServingInput(uri=uri, reason=str(reason))
    said = base.model_copy(
        update={"reason": str(reason), "message": message, "fetched_bytes": None, "fetch_bytes": None,
                "eta_seconds": None, **({} if not job or is_over(job) else figures(observed, job))}
    )  # fmt: skip
    wait = rest_of(observed, job, refresh, heard=word is not None) if job else None
    return Fetch(field, name, job, said, not problem, there and not problem, held_to, wait)


def job_name(serving: Manifest, spec: LLMServingSpec, uri: str) -> str:
    """Of the Job that brings a URI into this cache, by these Secrets; of this serving alone."""
    metadata, cache = serving["metadata"], spec.model_cache
    claim = cache.persistent_volume_claim.claim_name if cache and cache.persistent_volume_claim else ""
    secrets = [each.model_dump(mode="json") for each in spec.credentials]
    made_from = [FORMAT, metadata["uid"], uri, claim, secrets, *(["pickle"] if allows_pickle(spec, uri) else [])]
    return names.fetch_name(metadata["name"], digest_of(made_from)[:10])


def found(uri: str, job: str, word: FetchedInput, seconds: float | None = None) -> ServingInput:
    return ServingInput(
        uri=uri, revision=word.revision, bytes=word.bytes, license=word.license or None, job=job,
        reason=str(Reason.FETCHED), fetch_seconds=seconds,
    )  # fmt: skip


def served_of(fetches: Sequence[Fetch], uri: str) -> ServedResult | Problem:
    """What pods are given of a URI."""
    fetch = next(one for one in fetches if one.uri == uri)
    if not fetch.there:
        return Problem(Reason(fetch.said.reason), fetch.said.message)
    return ServedResult(uri=uri, revision=fetch.said.revision)


def can_be_mounted(fetches: Iterable[Fetch], served: ServedResult) -> bool:
    """Whether pods find it: on a claim, or in the model cache as the spec has it."""
    return not is_remote(served.uri) or any(
        one.there and one.uri == served.uri and one.said.revision == served.revision for one in fetches
    )


# --- what would not work ---------------------------------------------------------------------------------------------


def cache_problem(observed: Observed, spec: LLMServingSpec) -> Problem | None:
    """Why the claim of the model cache can't be used by all pods."""
    claim = spec.model_cache and spec.model_cache.persistent_volume_claim
    if not claim:
        return None
    name, modes = claim.claim_name, observed.access_modes.get(claim.claim_name, frozenset())
    if name not in observed.claims:
        said = f"PersistentVolumeClaim {name} of spec.modelCache does not exist; create it"
        return Problem(Reason.CLAIM_NOT_FOUND, said)
    if not modes or not modes <= {ONE_NODE, ONE_POD}:
        return None
    if modes == {ONE_POD}:
        said = "so one pod can mount it, and a Job fetches while pods serve; use ReadWriteMany"
        return Problem(Reason.CLAIM_ACCESS_MODE, f"PersistentVolumeClaim {name} has the access mode {ONE_POD}, {said}")
    if spec.replicas > 1 and not on_one_node(spec.pods):
        said = (
            f"PersistentVolumeClaim {name} of spec.modelCache has the access mode {ONE_NODE}, so one node can mount "
            f"it, and spec.replicas is {spec.replicas}; use a claim of access mode ReadWriteMany, replicas: 1, "
            "emptyDir, or pin the pods to one node by nodeSelector kubernetes.io/hostname"
        )
        return Problem(Reason.CLAIM_ACCESS_MODE, said)
    return None


def too_small(spec: LLMServingSpec, fetches: Sequence[Fetch]) -> Problem | None:
    """The kubelet would evict each pod at the end of its fetching."""
    volume, total = spec.model_cache and spec.model_cache.empty_dir, sum(one.said.bytes or 0 for one in fetches)
    if not volume or total <= amount(volume.size_limit):
        return None
    what = " and ".join(one.uri for one in fetches if one.said.bytes)
    said = f"spec.modelCache.emptyDir.sizeLimit: {volume.size_limit} is less than the {total:,} bytes of {what}"
    return Problem(Reason.INVALID_SPEC, f"{said}; raise it")


# --- its Job ---------------------------------------------------------------------------------------------------------


def is_over(job: Manifest) -> bool:
    return holds(job, "Complete") or holds(job, "Failed")


def rest_of(observed: Observed, job: Manifest, refresh: int | None, *, heard: bool) -> float | None:
    """Seconds until a Job that is over makes room for the next. Ages are of our own clock."""
    age = observed.ages.get(job_fact(job), 0.0)
    if holds(job, "Failed"):
        return max(0.0, retry_seconds(refresh) - age)
    if not holds(job, "Complete"):
        return None
    if not heard and observed_lacks(observed, job):
        return max(0.0, UNHEARD_SECONDS - age)
    return max(0.0, refresh - age) if refresh else None


def retry_seconds(refresh: int | None) -> float:
    """After a Job that failed."""
    return min(RETRY_SECONDS, refresh or RETRY_SECONDS)


def observed_lacks(observed: Observed, job: Manifest) -> bool:
    """Whether what a complete Job has told is in no status either, as its pod was deleted."""
    told = (observed.serving.get("status") or {}).get("inputs")
    listed = told if isinstance(told, list) else []
    return not any(isinstance(one, dict) and one.get("job") == job["metadata"]["name"] for one in listed)


def stale_jobs(observed: Observed, fetches: Sequence[Fetch]) -> Iterator[Delete]:
    """Jobs of what nobody wants any more, and those whose time has come."""
    kept = {one.job_name for one in fetches if one.wait != 0.0}
    for job in observed.jobs:
        metadata = job["metadata"]
        if metadata["name"] not in kept and not is_leaving(job):
            yield Delete(job["apiVersion"], job["kind"], metadata["name"], metadata["uid"])


def pods_of(observed: Observed, job: Manifest) -> list[Manifest]:
    """By age."""
    uid = job["metadata"]["uid"]
    own = [pod for pod in observed.fetching if any(o.get("uid") == uid for o in pod["metadata"]["ownerReferences"])]
    return sorted(own, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))


def ended_well(pods: Iterable[Manifest]) -> Iterator[Mapping[str, object]]:
    for pod in pods:
        ended = container_state(pod, names.FETCHER, "terminated")
        if ended and ended["exitCode"] == 0:
            yield ended


def seconds_of_end(pods: Iterable[Manifest]) -> float | None:
    """That the pod which ended well took, by its kubelet's clock."""
    return next((seconds_between(ended) for ended in ended_well(pods)), None)


def word_of(pods: Iterable[Manifest]) -> FetchedInput | None:
    """What the pod that ended well has told."""
    for ended in ended_well(pods):
        word = read_word(ended)
        if word and word.progress and word.progress.inputs:
            return word.progress.inputs[0]
    return None


def read_word(ended: Mapping[str, object]) -> Termination | None:
    try:
        return Termination.model_validate_json(str(ended.get("message") or ""))
    except ValidationError:
        return None


def progress(observed: Observed, job: Manifest, retry: float, secrets: Sequence[str]) -> tuple[Reason, str]:
    """Of a Job, in words that stand while it goes on. ``retry``: seconds after one that failed."""
    name, pods = job["metadata"]["name"], pods_of(observed, job)
    if holds(job, "Failed"):
        failed = condition_of(job, "Failed") or {}
        said = next(
            (text for pod in reversed(pods) if (text := failure(pod))), str(failed.get("message") or "it failed")
        )
        rest = f"{retry / 60:g} minutes" if retry >= 120 else f"{retry:g} seconds"
        again = f"it is tried again after {rest}, or when Job {name} is deleted"
        return Reason.FETCH_FAILED, f"{said}; {again}"
    for pod in reversed(pods):
        if waiting := held_up(pod, names.FETCHER):
            return waiting.reason, waiting.message
        if text := failure(pod):
            return Reason.FETCHING, f"it is tried again: {text}"
    if secrets and pods and is_starting(pods[-1]):  # without one of them the kubelet waits, and says so in events alone
        needs = f"its pod starts, for which it needs the Secret {' and '.join(secrets)} of spec.credentials"
        return Reason.FETCHING, f"Job {name} fetches it; {needs}"
    return Reason.FETCHING, f"Job {name} fetches it"


def failure(pod: Manifest) -> str:
    """How the container of a pod ended badly; empty if it didn't."""
    ended = (container_status(pod, names.FETCHER).get("state") or {}).get("terminated") or {}
    if not ended.get("exitCode"):
        status = pod.get("status") or {}
        return (
            f"{where(pod)}: {status.get('reason')}: {status.get('message')}" if status.get("phase") == "Failed" else ""
        )
    word = read_word(ended)
    if word:
        return word.message
    return f"{where(pod)}: {last_line(str(ended.get('message') or '')) or ended.get('reason') or 'it says nothing'}"


def is_starting(pod: Manifest) -> bool:
    return not {"running", "terminated"} & (container_status(pod, names.FETCHER).get("state") or {}).keys()


def figures(observed: Observed, job: Manifest) -> dict[str, int | None]:
    """What the pod that is asked has told, if it is this Job's."""
    told, asked = observed.fetch_progress, observed.asked
    if told is None or asked is None or asked not in pods_of(observed, job) or not told.fetch_bytes:
        return {}
    eta = None if told.eta_seconds is None else round(min(told.eta_seconds, 1e9))
    return {"fetched_bytes": told.fetched_bytes, "fetch_bytes": told.fetch_bytes, "eta_seconds": eta}
