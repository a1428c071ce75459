"""What a stage is made from, after somebody else has written there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_trainer.checkpoint.files import MANIFEST, FolderManifest, content_files, record
from llm_trainer.config import StageConfig
from llm_trainer.runtime.errors import DataError
from llm_trainer.stages.inputs import verified, verify

URI = "pvc://models/run/stages/base/results/step-00000007"
EARLIER = "sha256:6f7f357ac1e4407bc1a96b3090432262e112b79e85223726a79806e3db5fcf46"


@pytest.fixture
def result(tmp_path: Path) -> Path:
    folder = tmp_path / URI.removeprefix("pvc://")
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text(name)
    write_manifest(folder)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/model.safetensors").write_text("model.safetensors")
    return folder


def write_manifest(folder: Path) -> str:
    """The digest."""
    files = [record(file, folder) for file in content_files(folder)]
    manifest = FolderManifest(kind="model", step=7, attempt=1, files=files)
    (folder / MANIFEST).write_text(manifest.model_dump_json(by_alias=True))
    return manifest.digest()


def config(volumes: Path, digest: str | None) -> StageConfig:
    return StageConfig.model_validate(
        {
            "training": "chat", "namespace": "team", "uid": "0", "stage": "chat", "attempt": 1, "nodes": 1,
            "processesPerNode": 1, "device": "cpu", "volumesRoot": str(volumes), "runUri": "pvc://models/run",
            "model": {"uri": URI}, "sft": {"dataset": {"uri": "pvc://corpus/a.jsonl"}},
            "digests": {URI: digest} if digest else {},
        }
    )  # fmt: skip


def other_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_text("model.safetensorz")


def other_weights_and_manifest(folder: Path) -> None:
    other_weights(folder)
    write_manifest(folder)


def link(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../../../../../secrets/model.safetensors")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (other_weights, "model.safetensors was altered: its blake3 differs"),
        (other_weights_and_manifest, "its digest is sha256:"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: (folder / "pytorch_model.bin").write_text("x"), "pytorch_model.bin was added"),
        (lambda folder: (folder / MANIFEST).unlink(), "its manifest can't be read"),
        (lambda folder: (folder / MANIFEST).write_text("[" * 10_000), "its manifest can't be read"),
        (link, "leads out of the claim models"),
    ],
    ids=["weights", "weights and manifest", "missing", "added", "no manifest", "deep manifest", "link"],
)
def test_a_changed_result_is_not_loaded(
    harm: Callable[[Path], object], says: str, result: Path, tmp_path: Path
) -> None:
    known = config(tmp_path, write_manifest(result))
    verify(known)
    harm(result)
    with pytest.raises(DataError, match=says), verified(known, 0):
        pass
    with verified(known, 1):
        pass  # rank 0 looks for all


def test_a_result_that_no_status_knows_is_held_against_its_manifest(result: Path, tmp_path: Path) -> None:
    verify(config(tmp_path, None))
    other_weights(result)
    with pytest.raises(DataError, match="was altered"):
        verify(config(tmp_path, None))


def test_what_no_training_has_made_is_not_held_against_anything(result: Path, tmp_path: Path) -> None:
    (result / MANIFEST).unlink()
    (result / "model.safetensors").unlink()
    (result / "blob").write_text("weights")
    os.link(result / "blob", result / "hard")
    (result / "model.safetensors").symlink_to("blob")  # as the caches of model hubs do
    verify(config(tmp_path, None))


def test_a_result_of_an_earlier_version_keeps_its_digest(result: Path, tmp_path: Path) -> None:
    """Of before files were hashed by BLAKE3; the status may tell it for ever."""
    files = [
        {"path": file.name, "size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in content_files(result)
    ]
    manifest = {"kind": "model", "step": 7, "attempt": 1, "worldSize": 1, "base": None, "baseDigest": None}
    (result / MANIFEST).write_text(json.dumps({**manifest, "files": files}))
    known = config(tmp_path, EARLIER)
    verify(known)
    other_weights(result)
    with pytest.raises(DataError, match=r"model.safetensors was altered: its sha256 differs"):
        verify(known)


@pytest.mark.parametrize("digests", [{}, {"blake3": "a", "sha256": "a"}, {"blake3": None}, {"crc32": "a"}])
def test_a_file_without_a_digest_is_not_taken_for_whole(digests: dict[str, str], result: Path, tmp_path: Path) -> None:
    manifest = json.loads((result / MANIFEST).read_text())
    manifest["files"][0] = {"path": "config.json", "size": 11, **digests}
    (result / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="its manifest can't be read"):
        verify(config(tmp_path, None))
