"""Decides what follows from what is seen of an app. Pure: no clock, no I/O, no kopf."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from llm_operator.api.app import LLMAppSpec, LLMAppStatus
from llm_operator.api.conditions import find
from llm_operator.api.reasons import AppCondition, Reason
from llm_operator.api.validation import InvalidSpecError
from llm_operator.apps import names
from llm_operator.apps.bounds import bounded
from llm_operator.apps.evaluation import Standing, evaluates, standing
from llm_operator.apps.evaluation_manifests import evaluation_children
from llm_operator.apps.index_manifests import index_children
from llm_operator.apps.knowledge import Base, bases, folders_in_use, made_by
from llm_operator.apps.manifests import addressed, workload
from llm_operator.apps.model import resolve
from llm_operator.apps.observe import Observed
from llm_operator.apps.status import Decision, is_rolled_out, refused, summary
from llm_operator.apps.tool_documents import documents_of
from llm_operator.kube import labels
from llm_operator.kube.mending import Mending, mending, scaled
from llm_operator.kube.network import created_jobs, without_pods
from llm_operator.kube.plan import Delete, Event, Manifest, Plan
from llm_operator.kube.pods import holds

# Comes and goes with every rollout or serving; the status says it.
QUIET = (
    Reason.STARTING,
    Reason.NOT_READY,
    Reason.SERVING_NOT_READY,
    Reason.ROLLING_OUT,
    Reason.VALID,
    Reason.INDEXING,
    Reason.EVALUATING,
)


def reconcile(observed: Observed, now: float) -> Plan:
    """What answers goes on, whatever happens to the serving and the documents."""
    old = LLMAppStatus.model_validate(observed.app.get("status") or {})
    spec = observed.spec
    if isinstance(spec, InvalidSpecError):
        return with_status(Plan(), observed, old, refused(observed, old, str(spec), now))
    decided = decide(observed, spec, old, now)
    mended = mending(decided.children, there(observed), observed.app, now)
    made = Plan(create=decided.create, apply=mended.apply, delete=(*stale(observed, decided), *mended.delete))
    planned = with_status(made, observed, old, summary(observed, spec, old, decided, now), mended)
    waits = [*(base.until - now for base in decided.bases if base.until), planned.requeue_after]
    return replace(planned, requeue_after=min((wait for wait in waits if wait is not None), default=None))


def apply_refused(observed: Observed, problem: str, now: float) -> Plan:
    """What answers goes on; the next try may go through, say because a quota was raised."""
    old = LLMAppStatus.model_validate(observed.app.get("status") or {})
    spec = observed.spec
    if isinstance(spec, InvalidSpecError):
        return with_status(Plan(), observed, old, refused(observed, old, str(spec), now))
    new = summary(observed, spec, old, decide(observed, spec, old, now), now, problem)
    return with_status(Plan(), observed, old, new)


def decide(observed: Observed, spec: LLMAppSpec, old: LLMAppStatus, now: float) -> Decision:
    """What answers by which knowledge.

    While it isn't known how the pods must be, or known that they would not answer, the Deployment keeps those that it
    has and follows ``replicas`` alone.
    """
    app, choice, known = observed.app, resolve(observed.serving, spec), bases(observed, spec, old, now)
    image = spec.image or observed.app_image
    children = addressed(app, spec, observed.network)
    create: list[Manifest] = []
    config = ""
    asked = Standing(Reason.EVALUATING, "the questions wait for model and knowledge") if spec.evaluation else None
    deployed: tuple[Manifest, ...] = ()
    documents = documents_of(observed, spec)
    if choice.model is not None and documents.usable and all(is_there(base) for base in known):
        config_map, deployment = workload(app, spec, choice, known, documents.digests, image, observed.pull_secrets)
        config = config_map["metadata"]["name"]
        create += absent(observed, (config_map,))
        asked, deployed = standing(observed, spec, choice, config, old), (deployment,)
        if spec.evaluation and asked and asked.makes and asked.job is None:
            make = evaluation_children(
                app, spec, spec.evaluation, choice, known, config, asked.revision, image, observed.pull_secrets,
                observed.network,
            )  # fmt: skip
            create += absent(observed, make)
    if rendered := bool(deployed) and not (asked and asked.holds_back):
        children += deployed
    else:
        children += scaled(observed.deployment, spec.replicas)
        if deployed:
            used = folders_in_use(observed, old)
            known = tuple(held_back(base, used.get(base.spec.name, "")) for base in known)
    for base in known:
        if base.makes and base.job is None:
            keep = revisions(observed, base)
            make = index_children(app, spec, base, keep, image, observed.pull_secrets, observed.network)
            create += absent(observed, make)
    return Decision(
        choice, known, children, tuple(create), rendered=rendered, config=config, asked=asked, documents=documents
    )


def held_back(base: Base, used: str) -> Base:
    """A revision that is there, and that no pod is to have yet, as another one is used."""
    if not (used and base.is_newest) or base.uri == used:
        return base
    said = f"revision {base.wanted} is indexed and waits for spec.evaluation"
    return replace(base, uri=used, reason=Reason.HELD_BACK, message=said)


def is_there(base: Base) -> bool:
    """Whether pods can be told all of it."""
    return bool(base.uri) and not base.elsewhere and (base.embedder is None or base.embedder.settings is not None)


def absent(observed: Observed, wanted: tuple[Manifest, ...]) -> Iterator[Manifest]:
    """Those that are not there; they never change."""
    known = {
        (one["kind"], one["metadata"]["name"])
        for one in (*observed.config_maps, *observed.network_policies, *observed.jobs)
    }
    return (one for one in wanted if (one["kind"], one["metadata"]["name"]) not in known)


def revisions(observed: Observed, base: Base) -> list[str]:
    """That pods may have, or may yet be given."""
    made = [revision for knowledge, revision in map(made_by, observed.jobs) if knowledge == base.spec.name]
    used = base.uri.rpartition("/")[2]
    return sorted({*made, *([used] if used else [])} - {base.wanted})


def stale(observed: Observed, decided: Decision) -> Iterator[Delete]:
    """Jobs of revisions that nobody wants, at once if they still run, and configurations.

    What is complete stays until no old pod is left: it may have to start once more.
    """
    over = decided.rendered and bool(observed.deployment) and is_rolled_out(observed, decided)
    wanted = {(base.spec.name, base.wanted) for base in decided.bases}
    wanted |= {(base.spec.name, base.uri.rpartition("/")[2]) for base in decided.bases}
    kept: set[str] = set()
    evaluated = {decided.asked.revision} if decided.asked else set()
    for found in (*observed.jobs, *observed.config_maps):
        if (revision := evaluates(found)) and decided.config and revision not in evaluated:
            yield delete(found)
    for job in filter(lambda one: not evaluates(one), observed.jobs):
        if made_by(job) in wanted or (holds(job, "Complete") and not over):
            kept.add(job["metadata"]["name"])
        elif "deletionTimestamp" not in job["metadata"]:
            yield delete(job)
    for found in filter(lambda one: not evaluates(one), observed.config_maps):
        told, name = found["metadata"].get("labels") or {}, found["metadata"]["name"]
        if told.get(labels.COMPONENT) == names.SERVER:
            if over and name != decided.config:
                yield delete(found)
        elif made_by(found) not in wanted and name not in kept:
            yield delete(found)
    jobs = [*(job["metadata"]["name"] for job in observed.jobs), *created_jobs(decided.create)]
    yield from without_pods(filter(names.is_of_job, observed.network_policies), jobs, observed.pods)


def delete(found: Manifest) -> Delete:
    return Delete(found["apiVersion"], found["kind"], found["metadata"]["name"], found["metadata"]["uid"])


def there(observed: Observed) -> tuple[Manifest, ...]:
    """What it has whatever answers. Jobs, and their policies, come and go."""
    policies = (policy for policy in observed.network_policies if not names.is_of_job(policy))
    return (*observed.services, *observed.disruption_budgets, *policies, *observed.deployments)


def with_status(
    made: Plan, observed: Observed, old: LLMAppStatus, new: LLMAppStatus, mended: Mending | None = None
) -> Plan:
    written = bounded(new).model_dump(mode="json", by_alias=True, exclude_none=True)
    events = mended.events if mended else ()
    made = replace(made, requeue_after=mended.wait if mended else None, events=events)
    if written == (observed.app.get("status") or {}):
        return made
    return replace(made, status=written, events=(*events, *events_between(old, new)))


def events_between(old: LLMAppStatus, new: LLMAppStatus) -> Iterator[Event]:
    """One for every change of reason."""
    for kind in AppCondition:
        now, before = find(new.conditions, kind), find(old.conditions, kind)
        if now and now.reason not in QUIET and not (before and before.reason == now.reason):
            yield Event("Normal" if now.status == "True" else "Warning", now.reason, now.message)
