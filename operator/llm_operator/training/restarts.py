"""Budgets of restarts and the pause before the next attempt. Pure.

What counts is faults in a row without progress: a training that gets on is never ended by how often it was moved, and
a crash loop always is.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from llm_operator.api.conditions import seconds_of
from llm_operator.api.training import Restarts
from llm_operator.api.training_status import SinceProgress, StageStatus
from llm_operator.kube.fields import at
from llm_operator.kube.plan import Manifest
from llm_operator.training.failures import Fault
from llm_operator.training.gang import under_way_fact

LONGEST_BACKOFF_SECONDS: dict[str | None, float] = {"Own": 60.0, "Infrastructure": 600.0}


def budget_of(training: Manifest) -> Restarts:
    """Read by itself: what failed while the spec can't work is paid when it fails."""
    try:
        return Restarts.model_validate(at(training, "spec", "restarts") or {})
    except ValidationError:
        return Restarts()


def with_restart(stage: StageStatus, fault: Fault, budget: Restarts, ages: Mapping[str, float]) -> StageStatus | None:
    """The stage, whose attempt has just ended, with one restart paid; None if there is none left.

    How long the attempt took is told by ``ages``: its start and end in the status may be of two operators' clocks.
    """
    field, limit = ("own", budget.own) if fault == "Own" else ("infrastructure", budget.infrastructure)
    used = used_since_progress(stage, ages.get(under_way_fact(stage.attempts[-1].job), 0.0), budget.window_seconds)
    count = getattr(used, field)
    if count >= limit:
        return None
    total = f"{field}_restarts"
    return stage.model_copy(
        update={"since_progress": used.model_copy(update={field: count + 1}), total: getattr(stage, total) + 1}
    )


def used_since_progress(stage: StageStatus, lasted: float, window_seconds: int) -> SinceProgress:
    """Progress is another checkpoint than at the fault before. Of infrastructure time without a fault is as good."""
    known = stage.since_progress or SinceProgress()
    step = stage.checkpoint.step if stage.checkpoint else None
    if step != known.step:
        return SinceProgress(step=step)
    return known.model_copy(update={"infrastructure": 0}) if lasted >= window_seconds else known


def next_attempt_at(stage: StageStatus) -> float:
    """Seconds since the epoch; at once after the first fault of a kind without progress, then later each time."""
    last = stage.attempts[-1] if stage.attempts else None
    if last is None or last.end_time is None:
        return 0.0
    used = stage.since_progress or SinceProgress()
    restarts = {"Own": used.own, "Infrastructure": used.infrastructure}.get(last.fault or "", 0)
    if restarts <= 1:
        return 0.0
    wait: float = min(2.0 ** (restarts - 1), LONGEST_BACKOFF_SECONDS[last.fault])
    return seconds_of(last.end_time) + wait
