"""Decides what follows from what is seen of a training. Pure: no clock, no I/O, no kopf.

The status is the truth about attempts and budgets; children are disposable. So the status is written after the
children of a new attempt, and the children of an ended one are deleted only once the status has its cause. A pass that
learns of an end writes that and nothing else: no refusal can then lose it, and the next pass goes on from there.
"""

from __future__ import annotations

from dataclasses import replace

from llm_operator.api.conditions import find
from llm_operator.api.reasons import Reason, TrainingCondition
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.training_status import LLMTrainingStatus
from llm_operator.api.validation import InvalidSpecError
from llm_operator.kube.plan import Manifest, Plan
from llm_operator.training.again import taken_up
from llm_operator.training.bounds import bounded
from llm_operator.training.events import events_between
from llm_operator.training.known import as_begun, known_stages, whose_turn
from llm_operator.training.leftovers import deletions, ended_attempts, orphaned, superseded
from llm_operator.training.observe import Observed
from llm_operator.training.publishing import publish_refused, with_publications
from llm_operator.training.status import Verdict, all_succeeded, is_over, is_terminal, refused, summary
from llm_operator.training.turn import Outcome, Pass, not_started


def reconcile(observed: Observed, now: float) -> Plan:
    return with_publications(observed, of_stages(observed, now), now)


def of_stages(observed: Observed, now: float) -> Plan:
    old = LLMTrainingStatus.model_validate(observed.training.get("status") or {})
    if is_over(observed.training, old):
        return cleared(observed, old, old)
    asked = observed.spec
    assert asked is not None  # noqa: S101 -- it is not over
    if isinstance(asked, InvalidSpecError):
        return looked_after(observed, asked, old, now)
    spec = as_begun(asked, old.stages)
    if isinstance(spec, InvalidSpecError):
        return looked_after(observed, spec, old, now)
    if is_terminal(old):
        return plan(observed, old, taken_up(observed.training, asked, spec, old, now))
    planned, stages = known_stages(spec, old)
    running = find(old.conditions, TrainingCondition.RUNNING)
    index = whose_turn(stages)
    if index is None:  # those that had not were removed
        outcome = Outcome(stages[-1], all_succeeded(stages))
    else:
        outcome = Pass(observed, spec, planned[index], tuple(stages), running, now).decide(stages[index])
        stages[index] = outcome.stage
        if whose_turn(stages) is None:
            outcome = replace(outcome, verdict=all_succeeded(stages))
    status = summary(observed.training, spec, old, stages, outcome.stage, outcome.verdict, now)
    return plan(observed, old, status, outcome.create, outcome.requeue_after)


def apply_refused(observed: Observed, problem: str, now: float) -> Plan:
    """The stage waits and says for what; the next try may go through, say because a quota was raised."""
    if said := publish_refused(observed, problem, now):
        return said
    if observed.spec is None:
        return Plan()
    old = LLMTrainingStatus.model_validate(observed.training.get("status") or {})
    assert isinstance(observed.spec, LLMTrainingSpec)  # noqa: S101 -- nothing is made of a wrong one
    spec = as_begun(observed.spec, old.stages)
    assert isinstance(spec, LLMTrainingSpec)  # noqa: S101
    _, stages = known_stages(spec, old)
    index = whose_turn(stages)
    current = stages[-1 if index is None else index]
    verdict = Verdict(running=False, reason=Reason.APPLY_REFUSED, message=f"stage {current.name}: {problem}")
    new = summary(observed.training, spec, old, stages, current, verdict, now)
    return Plan(status=as_written(new), events=tuple(events_between(old, new)))


def as_written(status: LLMTrainingStatus) -> Manifest:
    """No status is written that has not gone through here, nor compared with what was written."""
    return bounded(status).model_dump(mode="json", by_alias=True, exclude_none=True)


def plan(
    observed: Observed,
    old: LLMTrainingStatus,
    new: LLMTrainingStatus,
    create: tuple[Manifest, ...] = (),
    requeue_after: float | None = None,
) -> Plan:
    written = as_written(new)
    events = tuple(events_between(old, new))
    if ended_attempts(new) - ended_attempts(old):
        return Plan(status=written, events=events, requeue_after=0.0)
    clear = cleared(observed, old, new)
    requeue_after = min((wait for wait in (requeue_after, clear.requeue_after) if wait is not None), default=None)
    if written == (observed.training.get("status") or {}):
        return replace(clear, create=create, requeue_after=requeue_after)
    return replace(clear, create=create, status=written, events=events, requeue_after=requeue_after)


def cleared(observed: Observed, old: LLMTrainingStatus, new: LLMTrainingStatus) -> Plan:
    """Without what nobody needs any more; also when all is over."""
    ended, ended_later = superseded(observed, old)
    orphans, orphans_later = orphaned(observed, new)
    later = min((wait for wait in (ended_later, orphans_later) if wait is not None), default=None)
    return Plan(delete=deletions((*ended, *orphans), old), requeue_after=later)


def looked_after(observed: Observed, problems: InvalidSpecError, old: LLMTrainingStatus, now: float) -> Plan:
    """With a spec that can't work no attempt starts. What is under way goes on, is suspended, or ends as it would."""
    stages = list(old.stages)
    index = whose_turn(stages)
    running = find(old.conditions, TrainingCondition.RUNNING)
    if is_terminal(old) or index is None or not any(stage.attempts for stage in stages):
        verdict = not_started("") if running and not is_terminal(old) else None
        return plan(observed, old, refused(observed.training, old, problems, verdict, now))
    outcome = Pass(observed, None, None, tuple(stages), running, now).decide(stages[index])
    stages[index] = outcome.stage
    status = summary(observed.training, problems, old, stages, outcome.stage, outcome.verdict, now)
    return plan(observed, old, status, requeue_after=outcome.requeue_after)
