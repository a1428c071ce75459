"""What the metrics count of the cached objects: labels have values of closed lists, whatever a status says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client.registry import Collector
from pydantic import ValidationError

from llm_app.config import METRICS
from llm_operator.api.conditions import seconds_of
from llm_operator.api.reasons import AppCondition, Reason, ServingCondition, TrainingCondition
from llm_operator.api.training_status import SinceProgress
from llm_operator.kube.cache import Cache
from llm_operator.kube.fields import object_at, objects_at
from llm_operator.kube.kinds import APP, SERVING, TRAINING, Kind
from llm_operator.kube.plan import Manifest
from llm_operator.metrics import OTHER, TRAINING_PHASES, ObjectCounts, ObjectFigure
from llm_operator.training.restarts import budget_of

PHASES = frozenset({*TRAINING_PHASES, "Waiting", "Ready", "RollingOut", "ScalingToZero", "ScaledToZero",
                    "Indexing", "Evaluating", "HeldBack", "Degraded"})  # fmt: skip
CONDITIONS = frozenset(map(str, (*TrainingCondition, *ServingCondition, *AppCondition)))
REASONS = frozenset(map(str, Reason))
VALUES = frozenset({"True", "False", "Unknown"})


def counts(cache: Cache) -> list[Collector]:
    trainings, servings, apps = (Objects(cache, kind) for kind in (TRAINING, SERVING, APP))
    return [
        ObjectCounts("llmtrainings", "Number of llmtrainings by phase.", ("phase",), Phases(trainings)),
        ObjectCounts("llmservings", "Number of llmservings by phase.", ("phase",), Phases(servings)),
        ObjectCounts("llmapps", "Number of llmapps by phase.", ("phase",), Phases(apps)),
        ObjectCounts(
            "llmtraining_conditions", "Number of llmtrainings by what a condition says.",
            ("type", "status", "reason"), Conditions(trainings),
        ),
        ObjectCounts(
            "llmserving_conditions", "Number of llmservings by what a condition says.",
            ("type", "status", "reason"), Conditions(servings),
        ),
        ObjectCounts(
            "llmapp_conditions", "Number of llmapps by what a condition says.",
            ("type", "status", "reason"), Conditions(apps),
        ),
        ObjectCounts(
            "llmtrainings_last_restart", "Number of llmtrainings whose next fault of this kind ends them.",
            ("fault",), LastRestarts(trainings),
        ),
        ObjectFigure(
            "llmapp_lowest_score", "Lowest score of any llmapp by metric, of its newest evaluation; from 0 to 1.",
            Scores(apps), min, "metric",
        ),
        ObjectFigure(
            "llmapp_knowledge_outdated_seconds",
            "For how long the newest documents of an llmapp have not been in use, of the one that waits longest.",
            Outdated(apps), max,
        ),
        ObjectFigure(
            "llmserving_fetch_idle_seconds",
            "For how long no byte has come of what an llmserving fetches, of the fetch that waits longest.",
            IdleFetches(servings), max,
        ),
    ]  # fmt: skip


@dataclass(frozen=True)
class Objects:
    """All cached ones of a kind."""

    cache: Cache
    kind: Kind

    def __iter__(self) -> Iterator[Manifest]:
        return iter(self.cache.objects(self.kind.name))


@dataclass(frozen=True)
class Phases:
    objects: Objects

    def __iter__(self) -> Iterator[tuple[str]]:
        for manifest in self.objects:
            yield (one_of(PHASES, object_at(manifest, "status").get("phase") or "Pending"),)


@dataclass(frozen=True)
class Conditions:
    objects: Objects

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        for manifest in self.objects:
            for told in objects_at(manifest, "status", "conditions"):
                kind = one_of(CONDITIONS, told.get("type"))
                if kind != OTHER:
                    yield kind, one_of(VALUES, told.get("status")), one_of(REASONS, told.get("reason"))


@dataclass(frozen=True)
class LastRestarts:
    """The stage whose turn it is has used all but nothing of a budget, which is not 0 from the start."""

    objects: Objects

    def __iter__(self) -> Iterator[tuple[str]]:
        for manifest in self.objects:
            status, budget = object_at(manifest, "status"), budget_of(manifest)
            for stage in objects_at(status, "stages"):
                if stage.get("name") != status.get("stage") or stage.get("state") in ("Succeeded", "Failed"):
                    continue
                try:
                    used = SinceProgress.model_validate(stage.get("sinceProgress") or {})
                except ValidationError:
                    continue
                if 0 < budget.own <= used.own:
                    yield ("Own",)
                if 0 < budget.infrastructure <= used.infrastructure:
                    yield ("Infrastructure",)


@dataclass(frozen=True)
class Scores:
    objects: Objects

    def __iter__(self) -> Iterator[tuple[str, float]]:
        for manifest in self.objects:
            for told in objects_at(manifest, "status", "evaluation", "scores"):
                metric, value = told.get("metric"), told.get("value")
                if metric in METRICS and isinstance(value, int | float) and 0 <= value <= 1:
                    yield str(metric), float(value)


@dataclass(frozen=True)
class Outdated:
    """Apps whose newest knowledge is not in use, by the time since which their condition says so."""

    objects: Objects
    now: Callable[[], float] = time.time

    def __iter__(self) -> Iterator[tuple[str, float]]:
        for manifest in self.objects:
            for told in objects_at(manifest, "status", "conditions"):
                since = seconds_of(str(told.get("lastTransitionTime")))
                if told.get("type") == AppCondition.KNOWLEDGE_READY and told.get("status") == "False" and since:
                    yield "", max(0.0, self.now() - since)


@dataclass
class IdleFetches:
    """Fetches under way, by the time since which they have shown the same number of bytes, as they were asked about."""

    objects: Objects
    now: Callable[[], float] = time.monotonic
    _seen: dict[tuple[str, str], tuple[object, float]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        now = self.now()
        seen: dict[tuple[str, str], tuple[object, float]] = {}
        for manifest in self.objects:
            for told in objects_at(manifest, "status", "inputs"):
                if told.get("reason") != Reason.FETCHING:
                    continue
                key, fetched = (str(manifest["metadata"].get("uid")), str(told.get("uri"))), told.get("fetchedBytes")
                before = self._seen.get(key)
                seen[key] = before if before and before[0] == fetched else (fetched, now)
                yield "", now - seen[key][1]
        self._seen = seen


def one_of(known: frozenset[str], value: object) -> str:
    return value if isinstance(value, str) and value in known else OTHER
