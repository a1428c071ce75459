"""What a pass makes of spec.publish: results of stages that have succeeded go to buckets and hubs. Pure.

It is laid over what a pass has made of the stages, and never keeps anything of theirs back: a Job that publishes is
made when nothing else is to be written. The status is the truth about what was published; the Job is, until that tells
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from llm_operator.api.common import Condition
from llm_operator.api.conditions import find, timestamp, with_condition
from llm_operator.api.reasons import Reason, TrainingCondition
from llm_operator.api.resolve import published_stage
from llm_operator.api.training import LLMTrainingSpec, Publication
from llm_operator.api.training_status import LLMTrainingStatus, PublicationStatus, Result, StageStatus
from llm_operator.kube.kinds import NETWORK_POLICY
from llm_operator.kube.network import without_pods
from llm_operator.kube.plan import Delete, Event, Manifest, Plan
from llm_operator.kube.pods import container_state, held_up, is_leaving, terminated_text, where
from llm_operator.training.bounds import bounded
from llm_operator.training.gang import job_condition, job_of, last_word, terminated_state
from llm_operator.training.manifests import CONTAINER
from llm_operator.training.observe import Observed
from llm_operator.training.publish_manifests import credentials_of, publication, publication_name
from llm_operator.training.status import condition
from llm_trainer.protocol import Termination

OVER = ("Published", "Failed")
REASONS = {"Failed": Reason.PUBLISH_FAILED, "Publishing": Reason.PUBLISHING, "Pending": Reason.PENDING}


@dataclass(frozen=True)
class Step:
    """What a pass makes of one entry. ``keeps``: its Job stays."""

    status: PublicationStatus
    create: tuple[Manifest, ...] = ()
    delete: tuple[Manifest, ...] = ()
    keeps: bool = True


def with_publications(observed: Observed, plan: Plan, now: float) -> Plan:
    """The plan of the stages, and what is to be published with it."""
    stood = observed.training.get("status") or {}
    before = LLMTrainingStatus.model_validate(stood)
    spec = observed.publishes
    if spec is None or not (spec.publish or before.publications or observed.publishing):
        return plan
    new = LLMTrainingStatus.model_validate(plan.status or stood)
    steps = [step_of(observed, spec, entry, before, new.stages, now) for entry in spec.publish]
    if busy := bool(plan.create) or plan.status is not None:
        steps = [put_off(step) if step.create else step for step in steps]
    told = [step.status for step in steps]
    generation = observed.training["metadata"].get("generation")
    conditions = [each for each in new.conditions if each.type != TrainingCondition.PUBLISHED]
    refused = find(new.conditions, TrainingCondition.PUBLISHED)
    if told and busy and refused and refused.reason == Reason.APPLY_REFUSED:
        conditions = new.conditions  # the next try tells
    elif told:
        conditions = with_condition(new.conditions, condition_of(told, generation, now))
    new = new.model_copy(update={"publications": told, "conditions": conditions})
    written = bounded(new).model_dump(mode="json", by_alias=True, exclude_none=True)
    kept = {step.status.job for step in steps if step.keeps}
    return replace(
        plan,
        create=plan.create if busy else tuple(manifest for step in steps for manifest in step.create),
        delete=(*plan.delete, *deletions(observed, steps, kept)),
        status=written if written != stood else None,
        events=(*plan.events, *events_of(before.publications, told)),
        requeue_after=0.0 if busy and any(step.create for step in steps) else plan.requeue_after,
    )


def put_off(step: Step) -> Step:
    """Its Job is made in a pass that has nothing else to write."""
    return replace(step, status=step.status.model_copy(update={"state": "Pending", "message": "its Job is made next"}))


def step_of(
    observed: Observed,
    spec: LLMTrainingSpec,
    entry: Publication,
    old: LLMTrainingStatus,
    stages: Sequence[StageStatus],
    now: float,
) -> Step:
    name = published_stage(spec, entry)
    stage = next((known for known in stages if known.name == name), None)
    known = next((each for each in old.publications if (each.stage, each.to) == (name, entry.to)), None)
    if stage is None or stage.state != "Succeeded" or stage.result is None:
        said = f"stage {name} has not succeeded"
        return Step(PublicationStatus(stage=name, to=entry.to, state="Pending", message=said), keeps=False)
    result = stage.result
    if known is None or known.digest != result.digest:
        known = PublicationStatus(stage=name, to=entry.to, state="Pending", digest=result.digest)
    if known.state == "Failed" and spec.restart_token != old.observed_restart_token:
        known = known.model_copy(update={"state": "Pending", "attempt": known.attempt + 1, "time": None})
    known = known.model_copy(
        update={"job": publication_name(observed.training, name, entry.to, result.digest, known.attempt)}
    )
    if known.state in OVER:
        return Step(known)
    return under_way(observed, spec, entry, known, result, now)


def under_way(
    observed: Observed,
    spec: LLMTrainingSpec,
    entry: Publication,
    known: PublicationStatus,
    result: Result,
    now: float,
) -> Step:
    """Of a result that is there, and of which the status doesn't tell the end."""
    job = next((one for one in observed.publishing if is_job(one) and one["metadata"]["name"] == known.job), None)
    pods = [pod for pod in observed.publishing_pods if job_of(pod) == known.job]
    if spec.suspend:
        said = "spec.suspend is true; what is there already is not sent again"
        return Step(known.model_copy(update={"state": "Pending", "message": said}), keeps=False)
    if job is None:
        made = publication(
            observed.training, spec, entry, known.stage, result, str(known.job), spec.image or observed.trainer_image,
            observed.pull_secrets, observed.network,
        )  # fmt: skip
        there = {(child["kind"], child["metadata"]["name"]) for child in observed.publishing}
        missing = tuple(child for child in made if (child["kind"], child["metadata"]["name"]) not in there)
        return Step(known.model_copy(update={"state": "Publishing", "message": "its pod is to start"}), create=missing)
    if is_leaving(job):
        return Step(known.model_copy(update={"state": "Pending", "message": f"Job {known.job} is being deleted"}))
    if job_condition(job, "Complete") or job_condition(job, "SuccessCriteriaMet"):
        return completed(known, job, pods, now)
    if failed := job_condition(job, "Failed"):
        said = last_failure(pods) or str(failed.get("message") or "its Job failed")
        ended = {"state": "Failed", "time": timestamp(now), "message": said}
        return Step(known.model_copy(update=ended))
    secrets = [each.secret_name for each in credentials_of(spec, entry)]
    return Step(known.model_copy(update={"state": "Publishing", "message": progress_of(job, pods, secrets)}))


def completed(known: PublicationStatus, job: Manifest, pods: Sequence[Manifest], now: float) -> Step:
    """Without its pod's word, what was published is asked for by another Job, which sends nothing again."""
    words = [word.published for pod in pods if (word := word_of(pod)) and word.published]
    if not words:
        said = "the pod's last word was lost; what is there is looked at again"
        return Step(known.model_copy(update={"state": "Publishing", "message": said}), delete=(job,))
    found = {"revision": words[-1].revision, "bytes": words[-1].bytes, "time": timestamp(now), "message": None}
    return Step(known.model_copy(update={"state": "Published", **found}))


def progress_of(job: Manifest, pods: Sequence[Manifest], secrets: Sequence[str]) -> str:
    """What an open Job waits for, or that its pod runs, and how earlier tries ended."""
    living = [pod for pod in pods if not is_leaving(pod) and terminated_state(pod) is None]
    now = state_of(living[-1], secrets) if living else "its pod is to start"
    tries = (job.get("status") or {}).get("failed") or 0
    failure = last_failure(pods)
    return f"{now}; {tries} {'try' if tries == 1 else 'tries'} failed, the last: {failure}" if failure else now


def state_of(pod: Manifest, secrets: Sequence[str]) -> str:
    if waiting := held_up(pod, CONTAINER):
        return waiting.message
    if container_state(pod, CONTAINER, "running") is not None:
        return f"{where(pod)} works on it"
    needs = f"; it needs the Secret {' and '.join(secrets)} of spec.credentials" if secrets else ""
    return f"{where(pod)} starts{needs}"


def last_failure(pods: Sequence[Manifest]) -> str:
    """Of the pod that failed last, in its own words."""
    failed = [(end.get("finishedAt") or "", at) for at, pod in enumerate(pods) if (end := failure_of(pod))]
    if not failed:
        return ""
    pod = pods[max(failed)[1]]
    end, word = failure_of(pod), word_of(pod)
    return word.message if word and word.message else f"{where(pod)}, {terminated_text(end)}"


def failure_of(pod: Manifest) -> Manifest:
    end = terminated_state(pod)
    return end if end and end["exitCode"] else {}


def word_of(pod: Manifest) -> Termination | None:
    end = terminated_state(pod)
    return last_word(end) if end else None


def is_job(child: Manifest) -> bool:
    return bool(child["kind"] == "Job")


def deletions(observed: Observed, steps: Sequence[Step], kept: set[str | None]) -> Iterator[Delete]:
    """Of what nobody wants any more; a NetworkPolicy goes when nothing is left that it is about."""
    jobs = [child for child in observed.publishing if is_job(child)]
    policies = [child for child in observed.publishing if child["kind"] == NETWORK_POLICY.name]
    asked = {child["metadata"]["uid"] for step in steps for child in step.delete}
    for child in jobs:
        metadata = child["metadata"]
        if (metadata["name"] not in kept or metadata["uid"] in asked) and not is_leaving(child):
            yield Delete(child["apiVersion"], child["kind"], metadata["name"], metadata["uid"])
    names = {*(job["metadata"]["name"] for job in jobs), *filter(None, kept)}
    yield from without_pods(policies, names, observed.publishing_pods)


# --- what people are told ------------------------------------------------------------------------------------------


def condition_of(told: Sequence[PublicationStatus], generation: int | None, now: float) -> Condition:
    """Of all entries: the worst first."""
    for state, reason in REASONS.items():
        if found := [each for each in told if each.state == state]:
            more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
            said = f"{found[0].to}: {found[0].message or state.lower()}{more}"
            return condition(TrainingCondition.PUBLISHED, "False", reason, said, generation, now)
    said = ", ".join(f"{each.to} has stage {each.stage}" for each in told)
    return condition(TrainingCondition.PUBLISHED, "True", Reason.PUBLISHED, said, generation, now)


def events_of(old: Sequence[PublicationStatus], new: Sequence[PublicationStatus]) -> Iterator[Event]:
    before = {(each.stage, each.to): each for each in old}
    for each in new:
        known = before.get((each.stage, each.to))
        if known and (known.state, known.digest, known.attempt) == (each.state, each.digest, each.attempt):
            continue
        if each.state == "Published":
            said = f"stage {each.stage}: {each.to}, revision {each.revision}, {each.bytes:,} bytes"
            yield Event("Normal", Reason.PUBLISHED, said)
        elif each.state == "Failed":
            yield Event("Warning", Reason.PUBLISH_FAILED, f"stage {each.stage}: {each.to}: {each.message}")


def publish_refused(observed: Observed, problem: str, now: float) -> Plan | None:
    """The API server won't have a child that publishes: the condition says so; None if it was another child."""
    spec = observed.publishes
    names = {f"{kind} {name}" for kind in ("Job", NETWORK_POLICY.name) for name in wanted_names(observed)}
    if spec is None or problem.partition(":")[0] not in names:
        return None
    old = LLMTrainingStatus.model_validate(observed.training.get("status") or {})
    generation = observed.training["metadata"].get("generation")
    said = condition(TrainingCondition.PUBLISHED, "False", Reason.APPLY_REFUSED, problem, generation, now)
    held = find(old.conditions, TrainingCondition.PUBLISHED)
    new = bounded(old.model_copy(update={"conditions": with_condition(old.conditions, said)}))
    told = () if held and held.reason == Reason.APPLY_REFUSED else (Event("Warning", Reason.APPLY_REFUSED, problem),)
    return Plan(status=new.model_dump(mode="json", by_alias=True, exclude_none=True), events=told)


def wanted_names(observed: Observed) -> Iterator[str]:
    plan = with_publications(observed, Plan(), 0.0)
    yield from (manifest["metadata"]["name"] for manifest in plan.create)
