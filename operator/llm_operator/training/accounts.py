"""What trainings have taken and lost, counted as their statuses are written. Of the replica that leads, since it does.

Statuses may be written by hand: nothing here needs them whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_operator import metrics
from llm_operator.api.conditions import seconds_of
from llm_operator.api.resolve import resources_of
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.validation import InvalidSpecError
from llm_operator.kube.fields import object_at, objects_at, text_at
from llm_operator.kube.plan import Key, Manifest
from llm_operator.kube.specs import Specs

HELD = ("Starting", "Running")  # phases in which pods have what they asked for
OVER = ("Succeeded", "Failed")
RESTARTS = {"ownRestarts": "Own", "infrastructureRestarts": "Infrastructure"}


@dataclass(frozen=True)
class Seen:
    """A training as it was looked at last. `at`, `since`: by this process's own clock; `since` is that of the phase."""

    at: float
    phase: str
    since: float
    step: tuple[str, int]  # the stage, and its step
    gpus: int


class Accounts:
    def __init__(self, specs: Specs[LLMTrainingSpec]) -> None:
        self._specs = specs
        self._seen: dict[Key, Seen] = {}

    def forget(self, key: Key) -> None:
        self._seen.pop(key, None)

    def see(self, key: Key, training: Manifest, status: Manifest, now: float) -> None:
        """``training``: as the decision saw it; ``status``: what was written then."""
        before, phase = self._seen.get(key), str(status.get("phase") or "Pending")
        since = before.since if before and before.phase == phase else now
        new = Seen(now, phase, since, step_of(status), self._gpus(training, status) if phase in HELD else 0)
        if phase in OVER:
            self.forget(key)
        else:
            self._seen[key] = new
        if before:
            count_time(before, new)
        old = object_at(training, "status")
        count_ends(old, status, before.gpus if before else 0)
        count_publications(old, status)

    def _gpus(self, training: Manifest, status: Manifest) -> int:
        """That the pods of the stage whose turn it is have."""
        spec, name = self._specs.of(training), status.get("stage")
        if isinstance(spec, InvalidSpecError):
            return 0
        for stage, told in ((stage, told) for stage in spec.stages for told in objects_at(status, "stages")):
            if stage.name == name == told.get("name"):
                return resources_of(spec, stage).gpus * whole(told.get("nodes"))
        return 0


def count_time(before: Seen, new: Seen) -> None:
    spent = new.at - before.at
    metrics.PHASE_SECONDS.labels(metrics.phase(before.phase)).inc(spent)
    if before.phase == "Pending" and new.phase in HELD:
        metrics.QUEUE_WAIT.observe(new.at - before.since)
    if before.gpus:
        metrics.GPU_SECONDS.labels("allocated").inc(spent * before.gpus)
        if before.phase == "Running" and new.step != before.step:
            metrics.GPU_SECONDS.labels("training").inc(spent * before.gpus)


def count_ends(old: Manifest, new: Manifest, gpus: int) -> None:
    """Restarts, and the work since the last checkpoint of each attempt that a fault has ended."""
    known = {told.get("name"): told for told in objects_at(old, "stages")}
    for stage in objects_at(new, "stages"):
        before = known.get(stage.get("name"), {})
        for field, fault in RESTARTS.items():
            if (more := whole(stage.get(field)) - whole(before.get(field))) > 0:
                metrics.RESTARTS.labels(fault).inc(more)
        ended = {one.get("number") for one in objects_at(before, "attempts") if one.get("endTime")}
        for attempt in objects_at(stage, "attempts"):
            told = attempt.get("fault")
            if attempt.get("endTime") and attempt.get("number") not in ended and told in metrics.FAULTS:
                lost = lost_seconds(stage, attempt)
                metrics.LOST_SECONDS.labels(told).inc(lost)
                metrics.GPU_SECONDS.labels("lost").inc(lost * gpus)


def count_publications(old: Manifest, new: Manifest) -> None:
    known = {publication_end(told) for told in objects_at(old, "publications")}
    for told in objects_at(new, "publications"):
        if told.get("state") in metrics.PUBLICATION_ENDS and publication_end(told) not in known:
            metrics.PUBLICATIONS.labels(told["state"]).inc()


def publication_end(told: Manifest) -> tuple[str, ...]:
    return tuple(str(told.get(field)) for field in ("job", "state", "digest"))


def lost_seconds(stage: Manifest, attempt: Manifest) -> float:
    """From the newest checkpoint, or the attempt's start, to its end; the times may be of two clocks."""
    saved = seconds_of(text_at(stage, "checkpoint", "time"))
    began = seconds_of(str(attempt.get("startTime")))
    return max(0.0, seconds_of(str(attempt.get("endTime"))) - max(saved, began)) if began else 0.0


def step_of(status: Manifest) -> tuple[str, int]:
    name = str(status.get("stage"))
    for stage in objects_at(status, "stages"):
        if stage.get("name") == name and isinstance(progress := stage.get("progress"), dict):
            return name, whole(progress.get("step"))
    return name, 0


def whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
