"""What lies at a place that is published to: a stage's result, with its manifest, which tells whose it is.

The manifest is that of the result itself and tells beside it who has published. It comes last: without it nothing is
there. While a bucket is written to, a mark in it tells by whom.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from llm_trainer.checkpoint.files import MANIFEST, FolderManifest, alteration, content_files, read_manifest
from llm_trainer.config import PublishConfig, local_path
from llm_trainer.protocol import PublishedResult
from llm_trainer.runtime.errors import DataError

MARK = "publishing.json"  # in a bucket, until its manifest is there


class Publisher(BaseModel):
    """Who has published, or does it now."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    training: str
    namespace: str
    uid: str
    stage: str
    digest: str

    @classmethod
    def of(cls, config: PublishConfig) -> Publisher:
        names = ("training", "namespace", "uid", "stage", "digest")
        return cls(**{name: getattr(config, name) for name in names})

    def may_replace(self, other: Publisher) -> bool:
        """Of the same training, or the very same result, such as of a training that was taken over."""
        return self.uid == other.uid or self.digest == other.digest


class Mark(Publisher):
    """Of who writes to a bucket now."""

    replaces: list[str] = []  # files of the publication before that the new one doesn't have


class PublishedManifest(FolderManifest):
    """A result's manifest, with who published it. Its digest stays the result's."""

    publication: Publisher

    def digest(self) -> str:
        return FolderManifest(**self.model_dump(exclude={"publication"})).digest()

    @property
    def paths(self) -> set[str]:
        return {file.path for file in self.files}


@dataclass(frozen=True)
class Files:
    """What is to be published: files below a folder by their paths, and the manifest."""

    folder: Path
    manifest: PublishedManifest

    @property
    def size(self) -> int:
        return sum(file.size for file in self.manifest.files)

    @property
    def manifest_text(self) -> bytes:
        text = json.dumps(self.manifest.model_dump(mode="json", by_alias=True, exclude_none=True), indent=1)
        return f"{text}\n".encode()

    @property
    def digests(self) -> Mapping[str, str]:
        """Of each path, in words that a server may keep beside the file."""
        return {file.path: ":".join(file.digest) for file in self.manifest.files}


class Target(Protocol):
    def publish(self, files: Files) -> PublishedResult:
        """Raises DataError for what a user has to change, StorageError where the server fails for long."""
        ...


def result_files(config: PublishConfig) -> Files:
    """Raises DataError for a result that is not as its stage wrote it."""
    folder = Path(local_path(config.result, config.volumes_root))
    if problem := alteration(folder, config.digest):
        raise DataError(f"{config.result} is not as its stage wrote it: {problem}; nothing was published")
    manifest = read_manifest(folder)
    found = [file.relative_to(folder).as_posix() for file in content_files(folder)]
    if {file.path for file in manifest.files} != set(found) or {MANIFEST, MARK} & set(found):
        raise DataError(f"{config.result} has other files than its manifest names; nothing was published")
    told = PublishedManifest(**manifest.model_dump(), publication=Publisher.of(config))
    return Files(folder, told)


def read_published(text: bytes | None) -> PublishedManifest | None:
    """None for what is no manifest of ours."""
    try:
        return PublishedManifest.model_validate_json(text) if text is not None else None
    except ValidationError:
        return None


def read_mark(text: bytes | None) -> Mark | None:
    try:
        return Mark.model_validate_json(text) if text is not None else None
    except ValidationError:
        return None


def refuse_others(to: str, ours: Publisher, there: Publisher | None, listed: list[str]) -> None:
    """Raises DataError for a place that holds another's things."""
    if there is not None and not ours.may_replace(there):
        raise DataError(
            f"{to} has the stage {there.stage} of the LLMTraining {there.namespace}/{there.training} (uid "
            f"{there.uid}); nothing is overwritten: publish to another place, or remove what lies there"
        )
    if there is None and listed:
        some = ", ".join(listed[:3]) + (" …" if len(listed) > 3 else "")
        raise DataError(
            f"{to} has files that no LLMTraining has published ({some}); nothing is overwritten: publish to another "
            "place, or remove them"
        )


def as_json(value: BaseModel) -> bytes:
    found: Any = value.model_dump(mode="json", by_alias=True)
    return f"{json.dumps(found)}\n".encode()
