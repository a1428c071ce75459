"""Dashboards are what their description makes; Prometheus reads each query. tests/e2e/test_main_job.py asks each."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry

from llm_operator import objects
from llm_operator.kube.cache import Cache
from llm_trainer.runtime.progress import Board
from tests.cluster.settings import REPOSITORY
from tests.monitoring.panels import COLUMNS, DASHBOARDS, filled
from tests.monitoring.test_alerts import names


@pytest.fixture(scope="module")
def described() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboards", REPOSITORY / "tools" / "dashboards.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["dashboards"] = module
    spec.loader.exec_module(module)
    return module


def queries() -> list[tuple[str, str]]:
    return [
        (f"{file.stem}: {panel['title']}", target["expr"])
        for file in sorted(DASHBOARDS.glob("*.json"))
        for panel in json.loads(file.read_text())["panels"]
        for target in panel.get("targets", [])
    ]


def test_they_are_written_by_their_description(described: ModuleType) -> None:
    found = {file: file.read_text() for file in DASHBOARDS.iterdir()}
    assert found == described.files(), "run `python tools/dashboards.py`"


def test_panels_are_beside_each_other() -> None:
    for file in DASHBOARDS.glob("*.json"):
        taken: dict[tuple[int, int], str] = {}
        for panel in json.loads(file.read_text())["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= COLUMNS
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    assert (x, y) not in taken, f"{file.stem}: {panel['title']} lies on {taken[x, y]}"
                    taken[x, y] = panel["title"]


def test_prometheus_reads_every_query(prometheus: Path, tmp_path: Path) -> None:
    variables = {"namespace": "a", "training": "a", "serving": "a"}
    rules = [
        {"record": f"panel:{number}", "expr": filled(expr, variables)} for number, (_, expr) in enumerate(queries())
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [prometheus / "promtool", "check", "rules", "--lint=none", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_a_panel_asks_for_is_there() -> None:
    counted = CollectorRegistry()
    for collector in objects.counts(Cache()):
        counted.register(collector)
    known = names(prometheus_client.REGISTRY) | names(counted) | names(Board("base", 1).metrics.registry)
    for panel, expr in queries():
        asked = set(re.findall(r"\b(?:llm_operator|llm_trainer)_\w+", expr))
        assert not asked - known, f"{panel} asks for {sorted(asked - known)}, which nobody tells"
