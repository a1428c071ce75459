"""The reference page of metrics has each one that is told, and none that isn't."""

from __future__ import annotations

import importlib.util
import re
import sys
from types import ModuleType

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry

from llm_app.figures import Figures
from llm_app.tools.figures import ToolFigures
from llm_operator import objects
from llm_operator.kube.cache import Cache
from llm_trainer.runtime.progress import Board
from tests.cluster.settings import REPOSITORY

ENDINGS = {"counter": "_total"}


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("metrics_page", REPOSITORY / "tools" / "metrics_page.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["metrics_page"] = module
    spec.loader.exec_module(module)
    return module


def test_it_is_as_the_code_says(writer: ModuleType) -> None:
    assert writer.PAGE.read_text() == writer.page(), "run `make generate`"


def test_each_metric_is_in_it_and_no_other(writer: ModuleType) -> None:
    counted = CollectorRegistry()
    for collector in objects.counts(Cache()):
        counted.register(collector)
    of_app = Figures().registry
    ToolFigures(of_app)
    told = {
        family.name + ENDINGS.get(family.type, "")
        for registry in (prometheus_client.REGISTRY, counted, Board("base", 1).metrics.registry, of_app)
        for family in registry.collect()
        if family.name.startswith("llm_")
    }
    assert set(re.findall(r"^\| `(\w+)`", writer.PAGE.read_text(), re.MULTILINE)) == told


def test_names_in_the_code_are_in_it(writer: ModuleType) -> None:
    """Also of a metric that somebody registers elsewhere."""
    page = writer.PAGE.read_text()
    kinds = r"(?:Gauge|Counter|Histogram|Summary|GaugeMetricFamily|CounterMetricFamily)\(\s*"
    found = [
        name
        for room in ("operator/llm_operator", "trainer_image/llm_trainer", "app_image/llm_app")
        for file in (REPOSITORY / room).rglob("*.py")
        for name in re.findall(kinds + r'f?"(?:\{PREFIX\}|llm_trainer|llm_app)_(\w+)"', file.read_text())
    ]
    assert len(found) > 20
    missing = [name for name in found if not re.search(rf"`llm_(?:operator|trainer|app)_{name}(?:_total)?`", page)]
    assert missing == []


def test_every_metric_has_its_labels_and_words(writer: ModuleType) -> None:
    for name, (_, labels, told) in writer.families().items():
        assert told.endswith("."), f"{name}: {told}"
        assert not name.startswith("llm_trainer_") or "stage" in labels, name
