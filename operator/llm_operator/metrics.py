"""Prometheus metrics, named after controller-runtime's. No label ever holds an object's name.

``controller`` is reconcile, progress (rank 0 is asked) or events (why pods are missing): each has a queue of its own.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterable

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

# Of trainings, by the replica that leads, since it does: it counts what it writes into statuses.
TRAINING_PHASES = ("Pending", "Starting", "Running", "Restarting", "Suspended", "Succeeded", "Failed", "Invalid")
FAULTS = ("Own", "Infrastructure", "Configuration")
OTHER = "Other"  # a word that is not ours: statuses may be written by hand
PHASE_SECONDS = prometheus.Counter(
    f"{PREFIX}_llmtraining_phase_seconds", "Time that trainings have spent in a phase.", ["phase"]
)
QUEUE_WAIT = prometheus.Histogram(
    f"{PREFIX}_llmtraining_queue_wait_seconds",
    "Time that a training was Pending before its pods had their place.",
    buckets=(5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600),
)
RESTARTS = prometheus.Counter(f"{PREFIX}_llmtraining_restarts", "Restarts by whose fault the end was.", ["fault"])
LOST_SECONDS = prometheus.Counter(
    f"{PREFIX}_llmtraining_lost_seconds", "Time since the newest checkpoint of attempts that a fault ended.", ["fault"]
)
GPU_SECONDS = prometheus.Counter(
    f"{PREFIX}_llmtraining_gpu_seconds",
    "GPUs by time: allocated (pods had them), training (while steps were made), lost (since the newest checkpoint of "
    "attempts that a fault ended). Productive is training without lost.",
    ["use"],
)
PUBLICATIONS = prometheus.Counter(
    f"{PREFIX}_llmtraining_publications",
    "Results that were brought to a bucket or a hub (Published), or could not be (Failed).",
    ["result"],
)
PUBLICATION_ENDS = ("Published", "Failed")
# a series that begins with its first count shows no increase
for end in PUBLICATION_ENDS:
    PUBLICATIONS.labels(end)
for fault in FAULTS:
    RESTARTS.labels(fault)
    LOST_SECONDS.labels(fault)
for use in ("allocated", "training", "lost"):
    GPU_SECONDS.labels(use)


def phase(value: str) -> str:
    """A word of ours."""
    return value if value in TRAINING_PHASES else OTHER


class Told(Collector):
    """Derived when Prometheus asks, so that nothing can drift. Without `describe` a registry would ask at once."""

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()


class ObjectCounts(Told):
    """How many of the cached objects there are of each kind."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...], found: Iterable[tuple[str, ...]]) -> None:
        """``found``: values of the labels for each object that counts, derived anew at every iteration."""
        self._name, self._text, self._labels, self._found = f"{PREFIX}_{name}", text, labels, found

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, self._text, labels=self._labels)
        for values, count in sorted(Count(self._found).items()):
            family.add_metric(values, count)
        yield family


class ObjectFigure(Told):
    """The least or the greatest of what cached objects tell, so that their number makes no series."""

    def __init__(
        self,
        name: str,
        text: str,
        found: Iterable[tuple[str, float]],
        choose: Callable[[float, float], float],
        label: str = "",
    ) -> None:
        """``found``: the value of the label, and the figure. Without a label, 0 stands for no object."""
        self._name, self._text, self._label, self._found, self._choose = f"{PREFIX}_{name}", text, label, found, choose

    def collect(self) -> Iterable[GaugeMetricFamily]:
        chosen: dict[str, float] = {} if self._label else {"": 0.0}
        for value, figure in self._found:
            chosen[value] = self._choose(chosen.get(value, figure), figure)
        family = GaugeMetricFamily(self._name, self._text, labels=(self._label,) if self._label else ())
        for value, figure in sorted(chosen.items()):
            family.add_metric((value,) if self._label else (), figure)
        yield family
