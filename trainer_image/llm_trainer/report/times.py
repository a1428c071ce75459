"""Where the time of a run went. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_trainer.report.records import StageRun
from llm_trainer.runtime.phases import PRODUCTIVE

# As a reader asks, and the phases that each is made of.
KINDS = {
    "starting": ("Starting",),
    "preparing": ("Preparing",),
    "training": ("Training", "Generating", "Scoring"),
    "evaluating": ("Evaluating",),
    "saving": ("Saving", "Exporting"),
}
WAITING, LOST, UNKNOWN = "waiting", "made again", "not told"


@dataclass(frozen=True)
class StageTime:
    """Seconds by what they went into; `waiting` is before and between attempts, without pods."""

    stage: str
    seconds: dict[str, float]
    devices: int

    @property
    def held(self) -> float:
        """For which pods were there."""
        return sum(seconds for kind, seconds in self.seconds.items() if kind != WAITING)

    @property
    def gpu_seconds(self) -> float:
        return self.devices * self.held

    @property
    def goodput(self) -> float:
        """Share of the time with pods that is in the result."""
        good = sum(self.seconds[kind] for kind in ("preparing", "training"))
        return good / self.held if self.held else 0.0


def times(stages: Sequence[StageRun]) -> list[StageTime]:
    """`stages`: in their order."""
    found, before = [], 0.0
    for stage in stages:
        seconds = dict.fromkeys((WAITING, *KINDS, LOST, UNKNOWN), 0.0)
        for attempt in sorted(stage.attempts.values(), key=lambda one: one.began or one.ended or 0.0):
            if attempt.began is None or attempt.ended is None:
                continue
            seconds[WAITING] += max(0.0, attempt.began - before) if before else 0.0
            before = max(before, attempt.ended)
            for kind, phases in KINDS.items():
                seconds[kind] += sum(attempt.spent.get(phase, 0.0) for phase in phases)
            rest = attempt.ended - attempt.began - sum(attempt.spent.values())
            # a pod that was killed told its last steps, but not what it spent since its last evaluation
            seconds["training" if any(phase in PRODUCTIVE for phase in attempt.spent) else UNKNOWN] += max(0.0, rest)
        lost = min(stage.lost_seconds, seconds["training"])
        seconds[LOST], seconds["training"] = lost, seconds["training"] - lost
        found.append(StageTime(stage.name, seconds, stage.devices))
    return found


def words(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.1f} min" if minutes < 60 else f"{hours:,.1f} h"
