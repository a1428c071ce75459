"""The operator itself: whether it works, and how fast."""

from __future__ import annotations

from tools.grafana.description import Dashboard, Series, Variable, number, series

ours = Series('namespace=~"$namespace"')
OPERATOR = Dashboard(
    "operator",
    "llm-operator: the operator",
    (Variable("namespace", "llm_operator_leader"),),
    (
        ("Does it work", (
            number("Replicas", f"count({ours.of('llm_operator_leader')})"),
            number("Leaders", f"sum({ours.of('llm_operator_leader')})"),
            number("Oldest key", f"max({ours.of('llm_operator_workqueue_oldest_seconds')})", "s"),
            number("Oldest watch", f"max({ours.of('llm_operator_watch_age_seconds')})", "s"),
            number("Refused lists", f"sum({ours.of('llm_operator_watch_refused')})"),
            number(
                "Memory", f"max({ours.of('process_resident_memory_bytes')} and on (pod) llm_operator_leader)", "bytes"
            ),
        )),
        ("How fast", (
            series("Passes", "ops", ours.rate("llm_operator_reconcile_total", "controller", "result")),
            series(
                "Length of a pass, 99 %", "s",
                *ours.quantiles("llm_operator_reconcile_time_seconds", 0.99, labels=("controller",)),
            ),
            series("Errors", "ops", ours.rate("llm_operator_reconcile_errors_total", "controller", "kind")),
            series(
                "Queues", "short", ours.by("sum", "llm_operator_workqueue_depth", "controller"),
                told="Keys that are due and wait for a worker.",
            ),
            series("Writes", "ops", ours.rate("llm_operator_writes_total", "verb", "kind")),
            series("Requests to the API server", "ops", ours.rate("llm_operator_api_requests_total", "verb", "code")),
        )),
    ),
)  # fmt: skip
