"""Every family goes the whole way in the trainer's engine: steps on packed rows, an adapter, export, and read back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tools.family_table import family_table, table_in

from llm_operator.api.architecture import architecture_problems
from llm_trainer.config import Architecture
from tests.trainer.pods import END_SECONDS, ROOT, free_port
from tests.trainer.tiny import ALL
from tests.trainer.warm import ENVIRONMENT

Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """By family."""
    environment = {
        **os.environ, **ENVIRONMENT, "PYTHONPATH": f"{ROOT}:{ROOT / 'trainer_image'}", "RANK": "0", "LOCAL_RANK": "0",
        "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("whole-way")
    command = [sys.executable, "-m", "tests.trainer.whole_way", str(folder)]
    with (folder / "log").open("w") as log:
        done = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=3 * END_SECONDS)
    text = (folder / "log").read_text()
    assert done.returncode == 0, text[-2000:]
    rows = [json.loads(line.partition("found ")[2]) for line in text.splitlines() if line.startswith("found ")]
    return {row["family"]: row for row in rows}


@pytest.mark.parametrize("family", ALL)
def test_a_family(family: str, found: Found) -> None:
    architecture = Architecture(family=family, config=ALL[family])
    assert not list(architecture_problems(architecture)), "the operator refuses what the trainer has made from scratch"
    row = found[family]
    assert "error" not in row, row["error"]
    for way in ("pretrain", "lora"):
        losses = row[way]["losses"]
        assert losses == sorted(losses, reverse=True), (way, losses)
        assert losses[-1] < losses[0] - 0.002, (way, losses)
    assert row["pretrain"]["reload"] < 1e-6
    assert row["lora"]["merged"] < 1e-5
    assert row["lora"]["untouched"] == [], "an adapter that the family passes by"


def test_the_table_of_the_docs_is_what_ran(found: Found) -> None:
    expected = family_table(found)
    if os.environ.get("UPDATE_GOLDEN"):
        page = ROOT / "docs" / "families.md"
        page.write_text(page.read_text().replace(table_in(page.read_text()), expected))
    text = Path(ROOT / "docs" / "families.md").read_text()
    assert table_in(text) == expected, "UPDATE_GOLDEN=1 pytest tests/trainer/test_whole_way.py"
