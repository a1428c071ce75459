"""Decides what follows from what is seen of a serving. Pure: no clock, no I/O, no kopf."""

from __future__ import annotations

from collections.abc import Iterator

from llm_operator.api.conditions import find
from llm_operator.api.reasons import Reason, ServingCondition
from llm_operator.api.serving import LLMServingStatus
from llm_operator.api.validation import InvalidSpecError, load_serving
from llm_operator.kube.plan import Event, Manifest, Plan
from llm_operator.kube.templates import mark_of
from llm_operator.serving.adapters import choose_adapters, to_load
from llm_operator.serving.bounds import bounded
from llm_operator.serving.manifests import children
from llm_operator.serving.model import choose_model
from llm_operator.serving.observe import Observed
from llm_operator.serving.status import Readiness, refused, said, summary

# Comes and goes with every rollout or training; the status says it.
QUIET = (Reason.STARTING, Reason.NOT_READY, Reason.TRAINING_NOT_FINISHED)


def reconcile(observed: Observed, now: float) -> Plan:
    """Without a model nothing is made; what serves already goes on whatever happens to the training."""
    old = LLMServingStatus.model_validate(observed.serving.get("status") or {})
    try:
        spec = load_serving(observed.serving.get("spec") or {}, observed.devices)
    except InvalidSpecError as error:
        return plan(observed, old, refused(observed, old, str(error), now))
    choice = choose_model(observed, spec)
    adapters = choose_adapters(observed, spec, choice.model)
    apply: tuple[Manifest, ...] = ()
    if choice.model:
        loaded = to_load(adapters, observed, choice.model)
        image = spec.image or observed.serving_image
        wanted = children(observed.serving, spec, choice.model, loaded, image, observed.pull_secrets)
        apply = tuple(child for child in wanted if differs(child, observed))
    return plan(observed, old, summary(observed, spec, old, choice, adapters, now), apply)


def apply_refused(observed: Observed, problem: str, now: float) -> Plan:
    """What serves already goes on; the next try may go through, say because a quota was raised."""
    old = LLMServingStatus.model_validate(observed.serving.get("status") or {})
    spec = load_serving(observed.serving.get("spec") or {}, observed.devices)
    choice = choose_model(observed, spec)
    adapters = choose_adapters(observed, spec, choice.model)
    new = summary(observed, spec, old, choice, adapters, now)
    readiness = Readiness(new.ready_replicas > 0, Reason.APPLY_REFUSED, problem)
    return plan(observed, old, new.model_copy(update=said(observed, old, choice, adapters, readiness, now)))


def differs(child: Manifest, observed: Observed) -> bool:
    """Whether a child isn't there as we last applied it. Its replicas have one writer, and that is the LLMServing."""
    there = (*observed.services, *observed.disruption_budgets, *observed.deployments)
    found = next((known for known in there if known["kind"] == child["kind"]), None)
    if found is None:
        return True
    if mark_of(found) != mark_of(child):
        return True
    replicas = child["spec"].get("replicas")
    return replicas is not None and (found.get("spec") or {}).get("replicas") != replicas


def plan(observed: Observed, old: LLMServingStatus, new: LLMServingStatus, apply: tuple[Manifest, ...] = ()) -> Plan:
    written = bounded(new).model_dump(mode="json", by_alias=True, exclude_none=True)
    if written == (observed.serving.get("status") or {}):
        return Plan(apply=apply)
    return Plan(apply=apply, status=written, events=tuple(events_between(old, new)))


def events_between(old: LLMServingStatus, new: LLMServingStatus) -> Iterator[Event]:
    """One for every change of reason."""
    for kind in ServingCondition:
        now, before = find(new.conditions, kind), find(old.conditions, kind)
        if now and now.reason not in QUIET and not (before and before.reason == now.reason):
            yield Event("Normal" if now.status == "True" else "Warning", now.reason, now.message)
