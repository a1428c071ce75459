"""Grafana's dashboards, each from a short description: run, it writes charts/llm-operator/dashboards.

The rows of a dashboard are in the order in which a person asks: does it go, how well, and if not, why.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "charts" / "llm-operator" / "dashboards"
RATE = "$__rate_interval"  # Grafana's own: four looks of Prometheus
COLUMNS = 24  # of Grafana's grid
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
Json = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """``legend``: in Grafana's form, such as `{{stage}}`."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """``unit``: Grafana's name of it. ``kind``: timeseries, stat, state-timeline, table, bargauge or heatmap."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    told: str = ""
    stacked: bool = False


@dataclass(frozen=True)
class Variable:
    """Values of a label of a metric, for the user to choose from."""

    name: str
    metric: str
    several: bool = True


@dataclass(frozen=True)
class Dashboard:
    name: str
    title: str
    variables: tuple[Variable, ...]
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    marks: dict[str, str] = field(default_factory=dict)  # what each mark over all panels means, and its query


def series(title: str, unit: str, *queries: Query, width: int = 8, told: str = "", stacked: bool = False) -> Panel:
    return Panel(title, queries, unit, "timeseries", width, told=told, stacked=stacked)


def number(title: str, expr: str, unit: str = "short", told: str = "") -> Panel:
    return Panel(title, (Query(expr),), unit, "stat", 4, 4, told)


def bars(title: str, query: Query) -> Panel:
    return Panel(title, (query,), kind="bargauge")


@dataclass(frozen=True)
class Series:
    """Those of the objects that the user has chosen: ``chosen`` are matchers of labels."""

    chosen: str

    def of(self, metric: str, more: str = "") -> str:
        return f"{metric}{{{','.join(filter(None, (self.chosen, more)))}}}"

    def by(self, how: str, metric: str, *labels: str, more: str = "", legend: str = "") -> Query:
        """``how``: sum or max."""
        return Query(f"{how} by ({', '.join(labels)}) ({self.of(metric, more)})", legend or shown(labels))

    def rate(self, metric: str, *labels: str, more: str = "", over: str = RATE, legend: str = "") -> Query:
        """Per second, summed by labels."""
        head = f"sum by ({', '.join(labels)})" if labels else "sum"
        return Query(f"{head} (rate({self.of(metric, more)}[{over}]))", legend or shown(labels))

    def mean(self, metric: str, *labels: str, over: str = RATE) -> Query:
        """Of a histogram."""
        parts = (f"rate({self.of(metric + ending)}[{over}])" for ending in ("_sum", "_count"))
        return Query(f"max by ({', '.join(labels)}) ({' / '.join(parts)})", shown(labels))

    def share(self, metric: str, *labels: str) -> Query:
        """Of the last ten minutes that went into what a histogram measures."""
        return Query(f"max by ({', '.join(labels)}) (rate({self.of(metric + '_sum')}[10m]))", shown(labels))

    def quantiles(self, metric: str, *wanted: float, labels: tuple[str, ...] = ()) -> tuple[Query, ...]:
        of = f"sum by ({', '.join(('le', *labels))}) (rate({self.of(metric + '_bucket')}[{RATE}]))"
        return tuple(Query(f"histogram_quantile({q}, {of})", shown(labels) or f"{q:.0%}") for q in wanted)


def shown(labels: tuple[str, ...]) -> str:
    """A legend of their values."""
    return " ".join(f"{{{{{label}}}}}" for label in labels)


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

STAGE = ("namespace", "training", "stage")
everywhere = Series("")
FLEET = Dashboard(
    "fleet",
    "llm-operator: all trainings and servings",
    (Variable("namespace", "llm_trainer_step"),),
    (
        ("What there is", (
            bars("Trainings by phase", everywhere.by("sum", "llm_operator_llmtrainings", "phase")),
            bars("Servings by phase", everywhere.by("sum", "llm_operator_llmservings", "phase")),
            bars("Why trainings don't run", everywhere.by(
                "sum", "llm_operator_llmtraining_conditions", "reason", more='type="Running",status="False"')),
        )),
        ("How it goes", (
            series(
                "Tokens a second", "short", ours.by("sum", "llm_trainer_tokens_per_second", *STAGE[:2]),
                stacked=True, width=12,
            ),
            series(
                "Share of the time in steps", "percentunit", ours.share("llm_trainer_step_seconds", *STAGE),
                told="The rest is evaluations, checkpoints, waiting for data and starts.", width=12,
            ),
            series(
                "Steps since the newest checkpoint", "short",
                Query(
                    f"max by ({', '.join(STAGE)}) ({ours.of('llm_trainer_step')} - llm_trainer_checkpoint_step)",
                    shown(STAGE),
                ),
                told="What a fault would cost.",
            ),
            series(
                "Wait for a place", "s", *everywhere.quantiles("llm_operator_llmtraining_queue_wait_seconds", 0.5, 0.9),
                told="Of trainings that got one: Pending until their pods had what they asked for.",
            ),
            series(
                "Trainings by what they spend their time on", "short",
                everywhere.rate("llm_operator_llmtraining_phase_seconds_total", "phase", over="10m"), stacked=True,
            ),
            series(
                "Restarts", "short", Query(
                    "sum by (fault) (increase(llm_operator_llmtraining_restarts_total{}[1h]))", "{{fault}}"),
                told="In an hour, by whose fault it was.",
            ),
            series(
                "Time that faults have cost", "s", Query(
                    "sum by (fault) (increase(llm_operator_llmtraining_lost_seconds_total{}[1h]))", "{{fault}}"),
                told="Since the newest checkpoint of each attempt that one ended, in an hour.",
            ),
            series(
                "GPUs", "short", everywhere.rate("llm_operator_llmtraining_gpu_seconds_total", "use", over="10m"),
                told="allocated: pods have them; training: steps are made; lost: steps that are made again.",
            ),
            series("Requests that run", "short", ours.by("sum", "vllm:num_requests_running", "namespace", "serving")),
            series("Requests that wait", "short", ours.by("sum", "vllm:num_requests_waiting", "namespace", "serving")),
        )),
    ),
)  # fmt: skip

its = Series('namespace=~"$namespace",training=~"$training"')


def newest(metric: str) -> str:
    """Of each stage that tells it now."""
    return f"max by (stage) ({its.of(metric)})"


TRAINING = Dashboard(
    "training",
    "llm-operator: one training",
    (Variable("namespace", "llm_trainer_step"), Variable("training", "llm_trainer_step", several=False)),
    (
        ("Does it go", (
            number("Step", newest("llm_trainer_step")),
            number("Tokens", newest("llm_trainer_tokens_total")),
            number("Loss", newest("llm_trainer_loss")),
            number("Tokens a second", newest("llm_trainer_tokens_per_second")),
            number("Since the last step", f"time() - ({newest('llm_trainer_last_step_timestamp_seconds')} > 0)", "s"),
            number("Steps left out", newest("llm_trainer_skipped_steps_total")),
            Panel(
                "Stages and attempts",
                (Query(f"max by (stage, attempt) ({its.of('llm_trainer_step')} * 0 + 1)", "{{stage}} {{attempt}}"),),
                kind="state-timeline", width=24,
            ),
        )),
        ("How well it learns", (
            series("Loss", "short", its.by("max", "llm_trainer_loss", "stage")),
            series("Held out", "short", its.by("max", "llm_trainer_evaluation", "stage", "name")),
            series(
                "Other figures", "short", its.by("max", "llm_trainer_figures", "stage", "name"),
                told="Of preferences and of reinforcement learning: reward, KL, entropy, lengths.",
            ),
            series("Learning rate", "sci", its.by("max", "llm_trainer_learning_rate", "stage")),
            series("Gradient norm", "short", its.by("max", "llm_trainer_gradient_norm", "stage")),
            series("Most loaded expert", "percentunit", its.by("max", "llm_trainer_expert_load", "stage", "layer")),
            series(
                "Tokens read, by source", "short", its.by("max", "llm_trainer_read_tokens", "stage", "source"),
                told="Of pretrain, against what its mixture asks for: llm_trainer_asked_share.", stacked=True,
            ),
            series("Epochs, by source", "short", its.by("max", "llm_trainer_source_epochs", "stage", "source")),
        )),
        ("How fast", (
            series("Tokens a second", "short", its.by("max", "llm_trainer_tokens_per_second", "stage")),
            series("Time of a step", "s", its.mean("llm_trainer_step_seconds", "stage")),
            series("Share of the time in steps", "percentunit", its.share("llm_trainer_step_seconds", "stage")),
            series("Time of a checkpoint", "s", its.mean("llm_trainer_checkpoint_seconds", "stage", over="1h")),
            series("Peak of GPU memory", "bytes", its.by("max", "llm_trainer_gpu_memory_peak_bytes", "stage", "rank")),
            series("Start, by part", "s", its.by("max", "llm_trainer_start_seconds", "stage", "part"), stacked=True),
        )),
        ("Where the time goes", (
            series(
                "Time by what it goes into", "percentunit",
                Query(f"max by (stage, phase) (rate({its.of('llm_trainer_phase_seconds_total')}[{RATE}]))",
                      "{{stage}} {{phase}}"),
                told="Training, Generating and Scoring are steps; the rest is around them.", stacked=True,
            ),
            series(
                "Parts of a step", "percentunit",
                Query(f"avg by (stage, part) (rate({its.of('llm_trainer_step_part_seconds_total')}[{RATE}]))",
                      "{{stage}} {{part}}"),
                told="Mean of the processes. data: a process waits for rows; agree: for the other processes.",
                stacked=True,
            ),
            series("Goodput", "percentunit", its.by("max", "llm_trainer_goodput", "stage", "attempt"),
                   told="Of an attempt's time so far."),
            series("RAM of a process", "bytes", its.by("max", "llm_trainer_memory_bytes", "stage", "rank")),
            series("Since the last sign of life", "s", its.by("max", "llm_trainer_heartbeat_age_seconds", "stage")),
            series("Work that is made again", "s", its.by("max", "llm_trainer_lost_seconds", "stage", "attempt")),
        )),
    ),
    {"an attempt begins": "max by (stage, attempt) ({0} unless {0} offset 1m)".format(
        its.of("llm_trainer_start_seconds"))},
)  # fmt: skip

served = Series('namespace=~"$namespace",serving=~"$serving"')
QUANTILES = (0.5, 0.9, 0.99)
RUNNING = "vllm:num_requests_running"
SERVING = Dashboard(
    "serving",
    "llm-operator: one serving",
    (Variable("namespace", RUNNING), Variable("serving", RUNNING, several=False)),
    (
        ("Does it answer", (
            number("Pods", f"count(sum by (pod) ({served.of(RUNNING)}))"),
            number("Requests that run", f"sum({served.of(RUNNING)})"),
            number("Requests that wait", f"sum({served.of('vllm:num_requests_waiting')})"),
            number("Tokens a second", served.rate("vllm:generation_tokens_total").expr),
            number(
                "Errors", served.rate("http_requests_total", more='status=~"5.*"', over="10m").expr + " or vector(0)",
                "reqps",
            ),
            number("KV cache in use", f"max({served.of('vllm:kv_cache_usage_perc')})", "percentunit"),
        )),
        ("How fast", (
            series("Time to the first token", "s", *served.quantiles("vllm:time_to_first_token_seconds", *QUANTILES)),
            series("Time between tokens", "s", *served.quantiles("vllm:inter_token_latency_seconds", *QUANTILES)),
            series("Time in the queue", "s", *served.quantiles("vllm:request_queue_time_seconds", *QUANTILES)),
            series(
                "Tokens a second", "short", served.rate("vllm:prompt_tokens_total", legend="prompts"),
                served.rate("vllm:generation_tokens_total", legend="answers"),
            ),
            series("Requests", "reqps", served.rate("http_requests_total", "status")),
            series("Ends of answers", "reqps", served.rate("vllm:request_success_total", "finished_reason")),
        )),
        ("What holds it up", (
            series(
                "Requests by pod", "short", served.by("sum", RUNNING, "pod", legend="{{pod}} run"),
                served.by("sum", "vllm:num_requests_waiting", "pod", legend="{{pod}} wait"),
            ),
            series("KV cache", "percentunit", served.by("max", "vllm:kv_cache_usage_perc", "pod")),
            series("Preemptions", "ops", served.rate("vllm:num_preemptions_total", "pod")),
            series("Prefix cache hits", "percentunit", Query(" / ".join(
                served.rate(f"vllm:prefix_cache_{what}_total").expr for what in ("hits", "queries")), "hits")),
            series(
                "Models", "reqps", served.rate("vllm:request_success_total", "model_name"),
                told="Which model or adapter answers.",
            ),
        )),
    ),
)  # fmt: skip

DASHBOARDS = (FLEET, TRAINING, SERVING, OPERATOR)


def rendered(dashboard: Dashboard) -> Json:
    """As Grafana imports it."""
    return {
        "uid": f"llm-operator-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["llm-operator"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [DATASOURCE, *map(variable, dashboard.variables)]},
        "annotations": {"list": [mark(name, expr) for name, expr in dashboard.marks.items()]},
        "panels": list(panels(dashboard)),
    }


DATASOURCE: Json = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def variable(found: Variable) -> Json:
    query = f"label_values({found.metric}, {found.name})"
    made = {"name": found.name, "type": "query", "datasource": SOURCE, "refresh": 2, "sort": 1, "query": query}
    every = {"multi": True, "includeAll": True, "current": {"text": "All", "value": "$__all"}}
    return {**made, **every} if found.several else made


def mark(name: str, expr: str) -> Json:
    place = {"datasource": SOURCE, "enable": True, "iconColor": "orange"}
    return {"name": name, **place, "expr": expr, "titleFormat": name}


def panels(dashboard: Dashboard) -> list[Json]:
    """Rows from left to right, as wide as they are; a row's title above it."""
    found: list[Json] = []
    top = 0
    for title, row in dashboard.rows:
        found.append({"id": len(found) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
                      "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1}})  # fmt: skip
        top += 1
        left = height = 0
        for each in row:
            if left + each.width > COLUMNS:
                top, left, height = top + height, 0, 0
            found.append(panel(each, len(found) + 1, {"x": left, "y": top, "w": each.width, "h": each.height}))
            left, height = left + each.width, max(height, each.height)
        top += height
    return found


def panel(found: Panel, number_of_it: int, place: Json) -> Json:
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 20} if found.stacked else {}
    return {
        "id": number_of_it,
        "type": found.kind,
        "title": found.title,
        "description": found.told,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": found.unit, **({"custom": custom} if custom else {})}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if found.kind == "timeseries" else {},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": query.expr, "legendFormat": query.legend}
            for place, query in enumerate(found.queries)
        ],
    }


def files() -> dict[Path, str]:
    """What must be in the chart."""
    texts = {one.name: json.dumps(rendered(one), indent=1, ensure_ascii=False) for one in DASHBOARDS}
    return {FOLDER / f"{name}.json": text + "\n" for name, text in texts.items()}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for file, text in files().items():
        file.write_text(text)
        sys.stdout.write(f"{file.name}\n")


if __name__ == "__main__":
    main()
