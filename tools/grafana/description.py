"""What a dashboard is described by: panels, the queries they show, and the series of the objects that a user chose."""

from __future__ import annotations

from dataclasses import dataclass, field

RATE = "$__rate_interval"  # Grafana's own: four looks of Prometheus


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
