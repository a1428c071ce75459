"""Grafana's dashboards, each from a short description: run, it writes charts/llm-operator/dashboards.

The rows of a dashboard are in the order in which a person asks: does it go, how well, and if not, why.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tools.grafana.app import APP
from tools.grafana.fleet import FLEET
from tools.grafana.operator import OPERATOR
from tools.grafana.rendering import rendered
from tools.grafana.serving import SERVING
from tools.grafana.training import TRAINING

FOLDER = Path(__file__).parents[1] / "charts" / "llm-operator" / "dashboards"
DASHBOARDS = (FLEET, TRAINING, SERVING, APP, OPERATOR)


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
