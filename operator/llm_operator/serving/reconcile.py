"""Decides what follows from what is seen of a serving. Pure: no clock, no I/O, no kopf."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from llm_operator.api.common import Condition
from llm_operator.api.conditions import find
from llm_operator.api.reasons import Reason, ServingCondition
from llm_operator.api.serving import LLMServingSpec, LLMServingStatus
from llm_operator.api.validation import InvalidSpecError
from llm_operator.kube.kinds import NETWORK_POLICY
from llm_operator.kube.mending import Mending, mending, scaled
from llm_operator.kube.network import created_jobs, without_pods
from llm_operator.kube.plan import Delete, Event, Manifest, Plan
from llm_operator.serving.adapters import choose_adapters, to_load
from llm_operator.serving.annotations import CHAT_TEMPLATE
from llm_operator.serving.bounds import bounded
from llm_operator.serving.chat_template import mark
from llm_operator.serving.fetch_manifests import fetch_children
from llm_operator.serving.fetching import can_be_mounted, fetches_of, stale_jobs
from llm_operator.serving.fleet import fleet_of, template_metadata
from llm_operator.serving.manifests import ANY, ANY_IPV4, Image, Surroundings, addressed, template, workload
from llm_operator.serving.model import choose_model, served_so_far
from llm_operator.serving.names import fetches_for
from llm_operator.serving.observe import Observed
from llm_operator.serving.pace import held
from llm_operator.serving.rollout import roll
from llm_operator.serving.status import Decision, refused, summary

NOTHING = Mending()
# Comes and goes with every rollout or training; the status says it.
QUIET = (
    Reason.STARTING,
    Reason.NOT_READY,
    Reason.TRAINING_NOT_FINISHED,
    Reason.FETCHING,
    Reason.SCALING_TO_ZERO,
)
# Of Progressing; the rest of it is Ready's event too.
ROLLOUT_NEWS = (Reason.REPLACING_PODS, Reason.ROLLOUT_STUCK, Reason.PAUSED)


def reconcile(observed: Observed, now: float) -> Plan:
    """Without a model nothing is made; what serves already goes on whatever happens to the training."""
    old = LLMServingStatus.model_validate(observed.serving.get("status") or {})
    spec = observed.spec
    if isinstance(spec, InvalidSpecError):
        return plan(observed, old, refused(observed, old, str(spec), now))
    decided = decide(observed, spec, old)
    mended = mending(decided.children, children(observed), observed.serving, now)
    pause = decided.held.wait if decided.held else None
    rests = [one.wait for one in decided.fetches if one.wait]
    waits = [wait for wait in (mended.wait, decided.rollout.wait, pause, *rests) if wait is not None]
    made = plan(observed, old, summary(observed, spec, old, decided, now), mended, min(waits, default=None))
    return replace(made, create=decided.create, delete=(*stale(observed, decided), *made.delete))


def apply_refused(observed: Observed, problem: str, now: float) -> Plan:
    """What serves already goes on; the next try may go through, say because a quota was raised."""
    old = LLMServingStatus.model_validate(observed.serving.get("status") or {})
    spec = observed.spec
    if isinstance(spec, InvalidSpecError):
        return plan(observed, old, refused(observed, old, str(spec), now))
    new = summary(observed, spec, old, decide(observed, spec, old), now, problem)
    return plan(observed, old, new)


def decide(observed: Observed, spec: LLMServingSpec, old: LLMServingStatus) -> Decision:
    """What is served and how its pods are replaced.

    While it isn't known how the pods must be, or known that none would answer, the Deployment keeps those that it has
    and follows ``replicas`` alone.
    """
    fetches = fetches_of(observed, spec, old)
    choice = choose_model(observed, spec, fetches)
    model = choice.model or served_so_far(observed, old)
    adapters = choose_adapters(observed, spec, model, fetches)
    serving, deployment = observed.serving, observed.deployment
    surroundings = surroundings_of(observed, spec)
    pods, waits = None, None
    if model and surroundings and not choice.refuses_spec and can_be_mounted(fetches, model):
        pods = template(serving, spec, model, to_load(adapters, observed, model), surroundings)
        if waits := held(observed, spec, old, pods, surroundings):
            pods = waits.pods
    fleet = fleet_of(observed.pods, deployment, pods)
    rollout = roll(spec, deployment, fleet, observed.without_room, observed.surge_timeout)
    children = addressed(serving, spec, observed.network) if model else ()
    children += (workload(serving, spec, pods, rollout.strategy),) if pods else scaled(deployment, spec.replicas)
    image, secrets = observed.trainer_image, observed.pull_secrets
    policies = {policy["metadata"]["name"] for policy in observed.network_policies}  # of a Job that is made again
    create = tuple(
        made
        for one in fetches
        if one.makes and one.job is None
        for made in fetch_children(serving, spec, one, image, secrets, observed.network)
        if made["metadata"]["name"] not in policies or made["kind"] != NETWORK_POLICY.name
    )
    rendered = pods is not None
    return Decision(choice, tuple(adapters), fleet, rollout, children, rendered, waits, fetches, create)


def children(observed: Observed) -> tuple[Manifest, ...]:
    """That it has whatever it serves. Jobs, and their policies, come and go."""
    policies = (policy for policy in observed.network_policies if not fetches_for(policy))
    return (*observed.services, *observed.disruption_budgets, *policies, *observed.deployments)


def stale(observed: Observed, decided: Decision) -> Iterator[Delete]:
    yield from stale_jobs(observed, decided.fetches)
    jobs = [*(job["metadata"]["name"] for job in observed.jobs), *created_jobs(decided.create)]
    yield from without_pods(filter(fetches_for, observed.network_policies), jobs, observed.fetching)


def surroundings_of(observed: Observed, spec: LLMServingSpec) -> Surroundings | None:
    """None while they are not known: without the launcher the Service, which tells of the cluster's IP families, and
    what a chat template's ConfigMap holds.
    """
    chat_template: str | None = ""
    if spec.chat_template and spec.chat_template.config_map:
        told = template_metadata(observed.deployment).get("annotations") or {}
        chat_template = mark(spec.chat_template.config_map, observed.chat_template, told.get(CHAT_TEMPLATE, ""))
    image = Image.of(spec.image or observed.serving_image, observed.trainer_image)
    if chat_template is None or not (image.has_launcher or observed.services):
        return None
    families = [family for found in observed.services for family in (found.get("spec") or {}).get("ipFamilies") or ()]
    host = ANY if "IPv6" in families else ANY_IPV4
    return Surroundings(image, host, chat_template, observed.pull_secrets, observed.trainer_image)


def plan(
    observed: Observed,
    old: LLMServingStatus,
    new: LLMServingStatus,
    mended: Mending = NOTHING,
    requeue_after: float | None = None,
) -> Plan:
    written = bounded(new).model_dump(mode="json", by_alias=True, exclude_none=True)
    events = mended.events
    if written == (observed.serving.get("status") or {}):
        return Plan(apply=mended.apply, delete=mended.delete, events=events, requeue_after=requeue_after)
    events += tuple(events_between(old, new))
    return Plan(apply=mended.apply, delete=mended.delete, status=written, events=events, requeue_after=requeue_after)


def events_between(old: LLMServingStatus, new: LLMServingStatus) -> Iterator[Event]:
    """One for every change of reason."""
    for kind in ServingCondition:
        now, before = find(new.conditions, kind), find(old.conditions, kind)
        if now and told(now) and not (before and before.reason == now.reason):
            yield Event("Normal" if now.status == "True" else "Warning", now.reason, now.message)


def told(condition: Condition) -> bool:
    """Whether a change to this reason is worth an event."""
    if condition.type == ServingCondition.PROGRESSING:
        return condition.reason in ROLLOUT_NEWS
    return condition.reason not in QUIET
