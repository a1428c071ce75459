"""The panels of the chart's dashboards, asked of a Prometheus, and drawn so that one can look without Grafana."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.cluster.settings import REPOSITORY
from tests.monitoring.scraping import Prometheus

DASHBOARDS = REPOSITORY / "charts" / "llm-operator" / "dashboards"
COLUMNS = 24


@dataclass(frozen=True)
class Answer:
    """What one panel would show."""

    dashboard: str
    panel: dict[str, Any]
    series: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # its legend, and what Prometheus gave

    @property
    def title(self) -> str:
        return str(self.panel["title"])


def answers(
    prometheus: Prometheus, variables: Mapping[str, Mapping[str, str]], start: float, end: float
) -> list[Answer]:
    """Of every panel of these dashboards. ``variables``: what a user chose, by dashboard."""
    found = []
    for name, chosen in sorted(variables.items()):
        for panel in json.loads((DASHBOARDS / f"{name}.json").read_text())["panels"]:
            if panel["type"] == "row":
                continue
            series = [
                (target["legendFormat"], one)
                for target in panel["targets"]
                for one in prometheus.range(filled(target["expr"], chosen), start, end)
            ]
            found.append(Answer(name, panel, series))
    return found


def filled(expr: str, variables: Mapping[str, str]) -> str:
    for name, value in {**variables, "__rate_interval": "30s"}.items():
        expr = expr.replace(f"${name}", value)
    assert "$" not in expr, f"{expr} has a variable that no dashboard sets"
    return expr


def legend(form: str, labels: Mapping[str, str]) -> str:
    for name, value in labels.items():
        form = form.replace(f"{{{{{name}}}}}", value)
    return form


def draw(found: list[Answer], folder: Path) -> None:
    """One picture a dashboard."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    for name in sorted({one.dashboard for one in found}):
        panels = [one for one in found if one.dashboard == name]
        height = max(one.panel["gridPos"]["y"] + one.panel["gridPos"]["h"] for one in panels)
        figure = plt.figure(figsize=(16, height / 2.6), dpi=80)
        for one in panels:
            place = one.panel["gridPos"]
            axes = figure.add_axes((
                (place["x"] + 0.9) / COLUMNS, 1 - (place["y"] + place["h"] - 1.1) / height,
                (place["w"] - 1.3) / COLUMNS, (place["h"] - 2.2) / height,
            ))  # fmt: skip
            axes.set_title(one.title, fontsize=9, loc="left")
            axes.tick_params(labelsize=7)
            draw_panel(axes, one)
        figure.savefig(folder / f"dashboard-{name}.png")
        plt.close(figure)


def draw_panel(axes: Any, answer: Answer) -> None:
    if answer.panel["type"] == "stat":
        axes.axis("off")
        value = float(answer.series[0][1]["values"][-1][1]) if answer.series else None
        axes.text(0.5, 0.5, "no data" if value is None else f"{value:.4g}", ha="center", va="center", fontsize=18)
        return
    for form, one in answer.series[:12]:
        times = [datetime.fromtimestamp(float(at), UTC) for at, _ in one["values"]]
        axes.plot(times, [float(value) for _, value in one["values"]], label=legend(form, one["metric"]), linewidth=1)
    if any(form for form, _ in answer.series):
        axes.legend(fontsize=6, loc="best")
