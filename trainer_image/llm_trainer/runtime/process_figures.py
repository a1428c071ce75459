"""What each process of a pod takes: its memory, and where the time of its steps goes.

Only a pod's first process is asked for metrics. Each leaves its figures beside its last words, in the pod's own scratch
folder, from which the first one tells those of all.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llm_trainer.runtime.last_words import folder

EVERY_SECONDS = 5.0  # they are written so often at most
FIGURES = "figures"


class StepParts:
    """Seconds of one process since it began, by what the host did in its steps; the rest of a step is computing.

    A GPU works on beside the host: what it still has to do is waited for in the part that needs it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(part, time.perf_counter() - began)

    def add(self, part: str, seconds: float) -> None:
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds


class ProcessFigures:
    """Of this process, written for the first one of its pod."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._written = -EVERY_SECONDS

    def tell(self, parts: StepParts, gpu_memory: int) -> None:
        """Called after each step; a folder that can't be written costs figures, nothing else."""
        if time.monotonic() - self._written < EVERY_SECONDS:
            return
        self._written = time.monotonic()
        told = {"memory": resident_memory(), "gpuMemory": gpu_memory, "parts": parts.seconds}
        with suppress(OSError):
            where = folder() / FIGURES
            where.mkdir(parents=True, exist_ok=True)
            temporary = where / f"{self._rank}.tmp"
            temporary.write_text(json.dumps(told))
            os.replace(temporary, where / f"{self._rank}.json")  # noqa: PTH105 -- atomic


def resident_memory() -> int:
    """Bytes of RAM that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class PodFigures(Collector):
    """Those of all processes of the pod, read when Prometheus asks."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def describe(self) -> list[Metric]:
        return list(self._families())

    def collect(self) -> list[Metric]:
        memory, gpu_memory, parts = self._families()
        for file in sorted((folder() / FIGURES).glob("*.json")):
            with suppress(OSError, ValueError, KeyError):
                told = json.loads(file.read_text())
                memory.add_metric((self._stage, file.stem), told["memory"])
                gpu_memory.add_metric((self._stage, file.stem), told["gpuMemory"])
                for part, seconds in told["parts"].items():
                    parts.add_metric((self._stage, file.stem, part), seconds)
        return [memory, gpu_memory, parts]

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, CounterMetricFamily]:
        labels = ("stage", "rank")
        return (
            GaugeMetricFamily("llm_trainer_memory_bytes", "RAM of each process of the pod.", labels=labels),
            GaugeMetricFamily(
                "llm_trainer_gpu_memory_peak_bytes", "Peak of a process's tensors on its GPU; 0 on CPU.", labels=labels
            ),
            CounterMetricFamily(
                "llm_trainer_step_part_seconds",
                "Seconds of steps by what a process did: data (waiting for rows), generate, score, agree (waiting for "
                "the other processes), compute (all else).",
                labels=(*labels, "part"),
            ),
        )
