"""Dashboards are what their description makes; Prometheus reads each query. tests/e2e/test_main_job.py asks each."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tools import dashboards

from tests.monitoring.panels import COLUMNS, DASHBOARDS, filled
from tests.monitoring.test_alerts import OURS, told_by_ours


def queries() -> list[tuple[str, str]]:
    return [
        (f"{file.stem}: {panel['title']}", target["expr"])
        for file in sorted(DASHBOARDS.glob("*.json"))
        for panel in json.loads(file.read_text())["panels"]
        for target in panel.get("targets", [])
    ]


def test_they_are_written_by_their_description() -> None:
    found = {file: file.read_text() for file in DASHBOARDS.iterdir()}
    assert found == dashboards.files(), "run `python tools/dashboards.py`"


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
    variables = {"namespace": "a", "training": "a", "serving": "a", "app": "a"}
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
    known = told_by_ours()
    for panel, expr in queries():
        asked = set(OURS.findall(expr))
        assert not asked - known, f"{panel} asks for {sorted(asked - known)}, which nobody tells"
