"""What a serving's Job and init containers do: the fetching program, as a pod starts it."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config.remote import FETCH_ENVIRONMENT, FETCH_VARIABLE
from llm_trainer.protocol import Progress, Termination
from tests.storage.hub_server import Fault, Hub, Repository, serving

WEIGHTS = random.Random(0).randbytes(3_000_000)
MODEL = {"config.json": b"{}", "model.safetensors": WEIGHTS, "own.py": b"raise SystemExit"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as found:
        found.repositories["team/model"] = Repository(dict(MODEL))
        yield found


def started(hub: Hub, folder: Path, uri: str = "hf://team/model", port: int = 0, **wanted: Any) -> Any:
    given: dict[str, Any] = {"cache": str(folder / "cache"), **wanted}
    given["input"] = {"field": "spec.model.uri", "uri": uri, "use": "model", **given.pop("held", {})}
    environment = {
        **os.environ, **FETCH_ENVIRONMENT, "HF_ENDPOINT": hub.url, FETCH_VARIABLE: json.dumps(given),
        "LLM_TERMINATION_MESSAGE": str(folder / "word"), "LLM_PROGRESS_PORT": str(port),
    }  # fmt: skip
    return subprocess.Popen([sys.executable, "-m", "llm_trainer.storage.for_serving"], env=environment)


def word(process: Any, folder: Path) -> Termination:
    process.wait(60)
    return Termination.model_validate_json((folder / "word").read_text())


def revision(told: Termination) -> str:
    assert told.progress, told
    return told.progress.inputs[0].revision


def test_it_fetches_and_says_the_revision(hub: Hub, tmp_path: Path) -> None:
    told = word(started(hub, tmp_path), tmp_path)
    commit = hub.repositories["team/model"].commit
    assert revision(told) == commit
    folder = tmp_path / "cache/hf/models/team/model" / commit
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_it_only_looks_where_it_has_no_cache(hub: Hub, tmp_path: Path) -> None:
    told = word(started(hub, tmp_path, cache=""), tmp_path)
    assert told.progress
    assert told.progress.inputs[0].bytes == len(WEIGHTS) + 2
    assert not hub.served


def test_it_is_held_to_a_revision(hub: Hub, tmp_path: Path) -> None:
    """Of a hub, which has its old ones, whatever main is by now."""
    repository = hub.repositories["team/model"]
    before = repository.commit
    repository.files["config.json"] = b'{"new": 1}'
    process = started(hub, tmp_path, held={"revision": before})
    assert f"has no revision {before!r}" in word(process, tmp_path).message, "this hub has the newest alone"
    assert process.returncode == 65
    told = word(started(hub, tmp_path, held={"revision": repository.commit}), tmp_path)
    assert revision(told) == repository.commit


@pytest.mark.parametrize(
    ("repository", "says"),
    [
        (None, "there is no such repository, or it is private; if it is not public, name a Secret with HF_TOKEN"),
        (Repository({"config.json": b"{}", "pytorch_model.bin": b"x"}), "has pickled weights alone"),
        (Repository(dict(MODEL), token="t", gated=True), "is gated"),
    ],
)
def test_what_is_refused_names_the_field(repository: Repository | None, says: str, hub: Hub, tmp_path: Path) -> None:
    if repository:
        hub.repositories["team/other"] = repository
    process = started(hub, tmp_path, "hf://team/other", cache="")
    told = word(process, tmp_path)
    assert told.message.startswith("spec.model.uri: hf://team/other")
    assert says in told.message
    assert (process.returncode, told.reason) == (65, "DataError")


def test_a_secret_without_its_key(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "TOKEN").write_text("do-not-tell")
    given = [{"secretName": "hub", "target": "hf", "folder": str(tmp_path / "secret")}]
    told = word(started(hub, tmp_path, credentials=given), tmp_path)
    assert "the Secret hub, for hf, has no HF_TOKEN; its keys are TOKEN" in told.message
    assert "do-not-tell" not in told.model_dump_json()


def test_it_says_how_far_it_is_and_leaves_when_asked(hub: Hub, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    hub.faults.append(Fault("stall", 1_000_000, file=".safetensors"))
    process = started(hub, tmp_path, port=port)
    progress = None
    while not progress or not progress.fetched_bytes:
        assert process.poll() is None
        time.sleep(0.1)
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/progress") as answer:
            progress = Progress.model_validate_json(answer.read())
    assert progress.fetch_bytes == len(WEIGHTS) + 2
    process.terminate()
    assert word(process, tmp_path).reason == "Preempted"
