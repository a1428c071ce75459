"""What the metrics count of the cached objects: labels have values of closed lists, whatever a status says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from llm_operator.api.reasons import AppCondition, Reason, ServingCondition, TrainingCondition
from llm_operator.api.training_status import SinceProgress
from llm_operator.kube.cache import Cache
from llm_operator.kube.kinds import APP, SERVING, TRAINING, Kind
from llm_operator.kube.plan import Manifest
from llm_operator.metrics import OTHER, TRAINING_PHASES, ObjectCounts
from llm_operator.training.restarts import budget_of

PHASES = frozenset({*TRAINING_PHASES, "Waiting", "Ready", "RollingOut", "ScalingToZero", "ScaledToZero",
                    "Indexing", "Degraded"})  # fmt: skip
CONDITIONS = frozenset(map(str, (*TrainingCondition, *ServingCondition, *AppCondition)))
REASONS = frozenset(map(str, Reason))
VALUES = frozenset({"True", "False", "Unknown"})


def counts(cache: Cache) -> list[ObjectCounts]:
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
            yield (one_of(PHASES, status_of(manifest).get("phase") or "Pending"),)


@dataclass(frozen=True)
class Conditions:
    objects: Objects

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        for manifest in self.objects:
            for told in dicts(status_of(manifest).get("conditions")):
                kind = one_of(CONDITIONS, told.get("type"))
                if kind != OTHER:
                    yield kind, one_of(VALUES, told.get("status")), one_of(REASONS, told.get("reason"))


@dataclass(frozen=True)
class LastRestarts:
    """The stage whose turn it is has used all but nothing of a budget, which is not 0 from the start."""

    objects: Objects

    def __iter__(self) -> Iterator[tuple[str]]:
        for manifest in self.objects:
            status, budget = status_of(manifest), budget_of(manifest)
            for stage in dicts(status.get("stages")):
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


def status_of(manifest: Manifest) -> Manifest:
    status = manifest.get("status")
    return status if isinstance(status, dict) else {}


def dicts(found: object) -> Iterator[Manifest]:
    return (one for one in found if isinstance(one, dict)) if isinstance(found, list) else iter(())


def one_of(known: frozenset[str], value: object) -> str:
    return value if isinstance(value, str) and value in known else OTHER
