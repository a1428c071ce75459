"""Results to publish, and the pod that publishes them, as a process of its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_trainer.checkpoint.files import COMPLETE, MANIFEST, FolderManifest, content_files, record
from llm_trainer.config import PUBLISH_VARIABLE, PublishConfig

UID = "0123abcd-0000"
SMALL = {"config.json": b'{"model_type": "llama"}', "README.md": b"---\nlicense: other\n---\n# Model\n"}


@dataclass(frozen=True)
class Run:
    """How a pod has ended."""

    code: int
    word: dict[str, Any]
    log: str

    @property
    def message(self) -> str:
        return str(self.word["message"])


def result(volumes: Path, name: str = "step-1", seed: int = 0, shards: int = 3, size: int = 3 << 20) -> tuple[str, str]:
    """URI and digest of a result with some shards of weights."""
    folder = volumes / "models" / "run" / name
    folder.mkdir(parents=True)
    files = dict(SMALL)
    for number in range(shards):
        files[f"model-{number}.safetensors"] = random.Random(100 * seed + number).randbytes(size)
    for path, content in files.items():
        (folder / path).write_bytes(content)
    manifest = FolderManifest(kind="model", step=1, attempt=1, files=[record(f, folder) for f in content_files(folder)])
    (folder / MANIFEST).write_text(manifest.model_dump_json(by_alias=True))
    (folder / COMPLETE).touch()
    return f"pvc://models/run/{name}", manifest.digest()


def config(
    volumes: Path, uri: str, digest: str, to: str, secret: Mapping[str, str] | None, **more: Any
) -> PublishConfig:
    target = "hf" if to.startswith("hf://") else "/".join(to.split("/")[:3])
    mounted: list[dict[str, str]] = []
    if secret is not None:
        folder = volumes / "secret"
        folder.mkdir(exist_ok=True)
        for key, value in secret.items():
            (folder / key).write_text(value)
        mounted = [{"secretName": "store", "target": target, "folder": str(folder)}]
    return PublishConfig.model_validate({
        "training": "chat", "namespace": "team", "uid": UID, "stage": "sft", "result": uri, "digest": digest,
        "to": to, "credentials": mounted, "volumesRoot": str(volumes), **more,
    })  # fmt: skip


def started(given: PublishConfig, folder: Path, **environment: str) -> subprocess.Popen[str]:
    word = folder / "word"
    word.unlink(missing_ok=True)
    env = {
        **os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(folder / "hf"),
        "LLM_TERMINATION_MESSAGE": str(word), PUBLISH_VARIABLE: given.model_dump_json(by_alias=True), **environment,
    }  # fmt: skip
    command = [sys.executable, "-m", "llm_trainer.storage.publish"]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def publish(given: PublishConfig, folder: Path, **environment: str) -> Run:
    process = started(given, folder, **environment)
    log, _ = process.communicate(timeout=120)
    word = folder / "word"
    return Run(process.returncode, json.loads(word.read_text()) if word.exists() else {}, log)
