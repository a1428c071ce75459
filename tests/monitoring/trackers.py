"""What the tests of spec.tracking share: a stage that names trackers, its history, and the libraries' own readers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import StageConfig
from llm_trainer.runtime.history import HISTORY, History
from tests.cluster.settings import REPOSITORY

Configure = Callable[..., StageConfig]
SERVER_SECONDS = 600.0  # for a server that makes its tables
SECONDS = 120.0  # for a library to be imported by a process that everybody else goes before


@pytest.fixture(scope="session")
def libraries() -> Path:
    script = REPOSITORY / "tools" / "libraries.sh"
    return Path(subprocess.run([script, "trackers"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip())


def configured(root: object, *tracking: dict[str, Any], attempt: int = 1) -> StageConfig:
    return StageConfig.model_validate({
        "training": "chat", "namespace": "team", "uid": "0123456789", "stage": "base", "attempt": attempt,
        "nodes": 1, "processesPerNode": 1, "device": "cpu", "volumesRoot": str(root),
        "runUri": "pvc://models/run", "pretrain": {"sequenceLength": 64, "steps": 10}, "tracking": tracking,
    })  # fmt: skip


@pytest.fixture
def stage(tmp_path: Path, libraries: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    monkeypatch.setenv("LLM_TRACKERS", str(libraries))

    def make(*tracking: dict[str, Any], attempt: int = 1) -> StageConfig:
        config = configured(tmp_path, *tracking, attempt=attempt)
        Path(config.stage_folder).mkdir(parents=True, exist_ok=True)
        return config

    return make


def history(config: StageConfig) -> History:
    return History(Path(config.stage_folder) / HISTORY, config.attempt)


def steps(config: StageConfig, first: int, last: int) -> None:
    for step in range(first, last + 1):
        history(config).append(step, loss=1 / step, learningRate=1e-3, figures={"kl": 0.5})


def read(libraries: Path, script: str, *arguments: object) -> Any:
    """What a script prints as JSON, run with the trackers' libraries."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(libraries)}, capture_output=True, text=True,
                          check=False, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


READ_EVENTS = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
print(json.dumps({tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}))
"""
READ_WANDB = """
import json, sys
from wandb.proto import wandb_internal_pb2
data, at, whole, found = open(sys.argv[1], "rb").read(), 7, b"", []
while at + 7 <= len(data):
    if 32768 - at % 32768 < 7:
        at += 32768 - at % 32768  # a block's end has no room for a header
        continue
    length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
    whole += data[at + 7 : at + 7 + length]
    at += 7 + length
    if kind in (1, 4):  # full, last
        record, whole = wandb_internal_pb2.Record.FromString(whole), b""
        if record.HasField("history"):
            items = record.history.item
            found.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
print(json.dumps(found))
"""
