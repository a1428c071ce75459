"""What a training has made is served as it made it, or not at all: a real process of the trainer's code looks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_operator.api.serving import ServedAdapter, ServedResult
from llm_operator.serving.manifests import digests
from llm_server import launch
from llm_server.last_words import CONFIGURATION
from llm_trainer.checkpoint.files import MANIFEST, FolderManifest, content_files, record
from llm_trainer.protocol import Termination
from tests.unit.serving.test_launcher import model, vllm

__all__ = ["vllm"]
READY = "import signal; signal.pause()"


def result(folder: Path, numbers: int = 500) -> str:
    """A model's folder as a stage publishes it; its digest."""
    model(folder, numbers)
    manifest = FolderManifest(
        kind="model", step=3, attempt=1, files=[record(file, folder) for file in content_files(folder)]
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(by_alias=True))
    return manifest.digest()


def problem(**digests: str) -> str | None:
    return launch.Verification(json.dumps(digests)).problem()


def test_what_is_as_it_was_written(tmp_path: Path) -> None:
    assert problem(**{str(tmp_path / name): result(tmp_path / name) for name in ("base", "law")}) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "has 1 bytes instead of"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json was altered"),
        (lambda folder: (folder / "chat_template.jinja").touch(), "chat_template.jinja was added"),
        (lambda folder: (folder / "model.safetensors").unlink(), "is missing"),
        (lambda folder: (folder / MANIFEST).unlink(), "manifest can't be read"),
        (lambda folder: result(folder, numbers=7), "its digest is sha256:"),
    ],
    ids=["weights", "configuration", "a file more", "a file less", "no manifest", "with its manifest"],
)
def test_what_was_changed(change: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    known = result(tmp_path / "base")
    change(tmp_path / "base")
    found = problem(**{str(tmp_path / "base"): known}) or ""
    assert found.startswith(f"spec.model: {tmp_path / 'base'} is not as its training wrote it: ")
    assert says in found


def test_a_user_may_do_without_the_look() -> None:
    """A model of hundreds of GB is read twice by it."""
    assert launch.Verification("{}").problem() is None
    assert launch.Verification.of({}) is None


def test_a_look_that_dies_is_no_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PID 1 takes the ends of all processes, so that the exit code may be lost."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "could not be compared" in (problem() or "")


def test_what_was_changed_is_not_served(vllm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VLLM loads it beside the look; it is ended before anybody is told that the pod is ready."""
    folder = tmp_path / "llama"
    known = result(folder)
    (folder / "config.json").write_text("{ }")
    vllm.write_text(f"#!{sys.executable}\n{READY}\n")
    monkeypatch.setenv(launch.DIGESTS, json.dumps({str(folder): known}))
    assert launch.main([str(folder), "--host=127.0.0.1", "--port=1"]) == CONFIGURATION
    word = Termination.model_validate_json((tmp_path / "termination").read_bytes())
    assert word.reason == "ConfigurationError"
    assert "config.json" in word.message
    assert "restore it, or train the stage that made it anew" in word.message


def test_the_pods_are_told_the_digests_of_what_trainings_made() -> None:
    law = ServedAdapter(name="law", uri="pvc://models/run/law", digest="sha256:law", step=1, rank=8)
    made = ServedResult(uri="pvc://models/run/$(HOME)", digest="sha256:one")
    assert json.loads(digests(made, [law])["LLM_SERVER_DIGESTS"]) == {
        "/volumes/models/run/$$(HOME)": "sha256:one", "/volumes/models/run/law": "sha256:law",
    }  # fmt: skip
    assert digests(ServedResult(uri="pvc://models/own"), [law.model_copy(update={"digest": None})]) == {}
