"""A dashboard as Grafana imports it."""

from __future__ import annotations

from typing import Any

from tools.grafana.description import Dashboard, Panel, Variable

COLUMNS = 24  # of Grafana's grid
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
Json = dict[str, Any]


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
