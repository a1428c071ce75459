"""Prometheus metrics, named after controller-runtime's. No label ever holds an object's name.

``controller`` is reconcile, progress (rank 0 is asked) or events (why pods are missing): each has a queue of its own.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterable

import prometheus_client as prometheus
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

PREFIX = "llm_operator"
prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every counter, which nobody reads

RECONCILES = prometheus.Counter(
    f"{PREFIX}_reconcile",
    "Reconcile passes by result: success, requeue_after, conflict, gone, error.",
    ["controller", "kind", "result"],
)
RECONCILE_ERRORS = prometheus.Counter(
    f"{PREFIX}_reconcile_errors", "Reconcile passes that raised an error.", ["controller", "kind"]
)
RECONCILE_TIME = prometheus.Histogram(
    f"{PREFIX}_reconcile_time_seconds",
    "Length of a reconcile pass.",
    ["controller", "kind"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
WRITES = prometheus.Counter(
    f"{PREFIX}_writes", "Objects written by verb: create, apply, delete, status, event.", ["verb", "kind"]
)
API_REQUESTS = prometheus.Counter(
    f"{PREFIX}_api_requests", "Requests to the API server by verb and status code; code 0: no answer.", ["verb", "code"]
)
LEADER = prometheus.Gauge(f"{PREFIX}_leader", "1 while this replica holds the Lease.")
ACTIVE_WORKERS = prometheus.Gauge(f"{PREFIX}_active_workers", "Reconcile passes that run now.", ["controller"])
QUEUE_DEPTH = prometheus.Gauge(f"{PREFIX}_workqueue_depth", "Keys that are due and wait for a worker.", ["controller"])
QUEUE_OLDEST = prometheus.Gauge(
    f"{PREFIX}_workqueue_oldest_seconds", "How long the oldest due key has waited.", ["controller"]
)
WATCH_AGE = prometheus.Gauge(
    f"{PREFIX}_watch_age_seconds", "Time since the API server last said anything of a kind.", ["kind"]
)
WATCH_REFUSED = prometheus.Gauge(
    f"{PREFIX}_watch_refused", "Watched namespaces (1: all) in which a kind may not be listed.", ["kind"]
)


class ObjectsByPhase(Collector):
    """Counts the cached objects by phase when Prometheus asks, so that no count can drift."""

    def __init__(self, phases: dict[str, Iterable[str]]) -> None:
        self._phases = phases  # metric name: one phase per object, derived anew at every iteration

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, phases in self._phases.items():
            family = GaugeMetricFamily(f"{PREFIX}_{name}", f"Number of {name} by phase.", labels=["phase"])
            for phase, count in sorted(Count(phases).items()):
                family.add_metric([phase], count)
            yield family
