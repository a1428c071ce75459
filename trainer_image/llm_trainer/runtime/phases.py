"""What the time of a process goes into, by the phases that `Progress` tells."""

from __future__ import annotations

import threading
import time

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

PRODUCTIVE = ("Training", "Generating", "Scoring", "Preparing")  # what a stage is there for; the rest is around it
LAST = "Done"


class PhaseClock:
    """Seconds of each phase so far. Created with the time at which the launcher began, of `time.monotonic`."""

    def __init__(self, began: float) -> None:
        self._lock = threading.Lock()
        self._phase, self._since = "Starting", began
        self._seconds: dict[str, float] = {}
        self.began = time.time() - (time.monotonic() - began)  # seconds since the epoch

    def enter(self, phase: str) -> None:
        with self._lock:
            now = time.monotonic()
            self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
            self._phase, self._since = phase, now

    def seconds(self) -> dict[str, float]:
        """By phase; the one that goes on counts until now."""
        with self._lock:
            now = self._seconds.get(self._phase, 0.0) + time.monotonic() - self._since
            found = {**self._seconds, self._phase: now}
        return {phase: round(spent, 3) for phase, spent in found.items() if phase != LAST}

    def goodput(self) -> float:
        """Share of the time that went into what the stage is there for."""
        spent = self.seconds()
        return sum(spent.get(phase, 0.0) for phase in PRODUCTIVE) / max(1e-9, sum(spent.values()))


class PhaseSeconds(Collector):
    """Counted when Prometheus asks, so that a phase that goes on for an hour is seen before it ends."""

    def __init__(self, stage: str, clock: PhaseClock) -> None:
        self._stage, self._clock = stage, clock

    def describe(self) -> list[CounterMetricFamily]:
        return [self._family()]

    def collect(self) -> list[CounterMetricFamily]:
        family = self._family()
        for phase, spent in sorted(self._clock.seconds().items()):
            family.add_metric((self._stage, phase), spent)
        return [family]

    @staticmethod
    def _family() -> CounterMetricFamily:
        text = "Seconds of this attempt by what it was doing, from the pod's start."
        return CounterMetricFamily("llm_trainer_phase_seconds", text, labels=("stage", "phase"))
