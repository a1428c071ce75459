"""docs/reference/metrics.md, from the registries that Prometheus is answered by: run, it writes the page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry

from llm_app.figures import Figures
from llm_app.tools.figures import ToolFigures
from llm_operator import objects
from llm_operator.kube.cache import Cache
from llm_trainer.runtime.progress import Board

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "metrics.md"
ENDINGS = {"counter": "_total"}
OPERATOR, TRAINER, APP = "llm_operator_", "llm_trainer_", "llm_app_"
LEAD = """<!-- Generated from the code by `make generate`; not to be edited. -->
# Metrics

What Prometheus is answered. How it gets there: [monitoring](../howto/monitoring.md). A serving's pods tell vLLM's own
metrics (`vllm:*`, `http_requests_total`). A histogram has the series `_bucket`, `_sum` and `_count`.
"""
ROOMS = {
    OPERATOR: """## The operator

Port 8080 of its pods. No label has an object's name, so no number of objects makes more series.
""",
    TRAINER: """## A training pod

Port `progress` (9400) of each pod of a training, told by its first process. Prometheus adds `namespace`, `training`,
`attempt` and `pod`.
""",
    APP: """## A pod of an app

Port `http` (8080), path `/metrics`. Those of tools and agents are there where an app has agents. Prometheus adds
`namespace`, `app` and `pod`.
""",
}


def registries() -> Iterator[CollectorRegistry]:
    yield prometheus_client.REGISTRY  # has llm_operator.metrics
    counted = CollectorRegistry()
    for collector in objects.counts(Cache()):
        counted.register(collector)
    yield counted
    yield Board("base", 1).metrics.registry
    app = Figures().registry
    ToolFigures(app)
    yield app


def families() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """By the name of a series: its type, its labels, and what it says."""
    found = {}
    for registry in registries():
        collectors: list[Any] = list(registry._collector_to_names)
        for collector in collectors:
            for family in collector.collect():
                labels = getattr(family, "_labelnames", None) or getattr(collector, "_labelnames", ())
                name = family.name + ENDINGS.get(family.type, "")
                found[name] = family.type, tuple(labels), family.documentation
    return {name: told for name, told in sorted(found.items()) if name.startswith(tuple(ROOMS))}


def page() -> str:
    lines = [LEAD]
    for prefix, about in ROOMS.items():
        lines += [about, "| metric | type | labels | |", "|---|---|---|---|"]
        for name, (kind, labels, told) in families().items():
            if name.startswith(prefix):
                shown = ", ".join(f"`{label}`" for label in labels)
                lines.append(f"| `{name}` | {kind} | {shown} | {told} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE.name}\n")
