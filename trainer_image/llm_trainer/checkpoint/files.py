"""Folders that are whole or not there: hashed, flushed to the disk, renamed into place."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic.alias_generators import to_camel

from llm_trainer.runtime.digests import Algorithm, digest_of
from llm_trainer.runtime.errors import ConfigurationError, StorageError
from llm_trainer.runtime.removal import remove

MANIFEST, COMPLETE = "manifest.json", "COMPLETE"
READERS = 8  # files hashed at the same time


class FileRecord(BaseModel):
    """With one digest: ``blake3``, or ``sha256`` in a manifest of an earlier version."""

    path: str
    size: int
    blake3: str | None = None
    sha256: str | None = None

    @model_validator(mode="after")
    def _one_digest(self) -> FileRecord:
        if (self.blake3 is None) == (self.sha256 is None):
            raise ValueError(f"{self.path} needs one of blake3 and sha256")
        return self

    @model_serializer(mode="wrap")
    def _by_its_digest(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Without the other, so that a manifest keeps its own digest whatever its version could name."""
        return {name: value for name, value in serialize(self).items() if value is not None}

    @property
    def digest(self) -> tuple[Algorithm, str]:
        return ("blake3", self.blake3) if self.blake3 is not None else ("sha256", str(self.sha256))


class FolderManifest(BaseModel):
    """Every file of a folder but the manifest itself."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    kind: str
    step: int
    attempt: int
    world_size: int = 1
    base: str | None = None
    base_digest: str | None = None
    files: list[FileRecord]

    def digest(self) -> str:
        """sha256:… over the content; the attempt that wrote it does not matter."""
        content = self.model_dump(mode="json", by_alias=True, exclude={"attempt", "world_size"})
        return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def content_files(folder: Path) -> list[Path]:
    """The files that a manifest lists, in a fixed order."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in (MANIFEST, COMPLETE))


def record(file: Path, folder: Path) -> FileRecord:
    """Hash a file and flush it to the disk."""
    digest = digest_of(file)
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        size = os.fstat(stream.fileno()).st_size
    return FileRecord(path=str(file.relative_to(folder)), size=size, blake3=digest)


def committed(stage_folder: Path) -> list[Path]:
    """A stage's checkpoints, good or bad. Raises StorageError where that can't be told: glob would say that none is."""
    folder = stage_folder / "checkpoints"
    try:
        return [entry for entry in folder.iterdir() if entry.name.startswith("step-")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(str(folder), error) from error


def unreadable(what: str, error: OSError) -> StorageError:
    return StorageError(
        f"{what} can't be read at this moment: {error.strerror or error}; the volume or its permissions: nothing was "
        "changed, and the next attempt looks again"
    )


def aside_of(folder: Path, attempt: int) -> Path:
    """Where `attempt` puts a checkpoint that it doesn't use: nobody looks for one there."""
    return folder.with_name(f"set-aside-{folder.name}-{attempt}")


def set_aside(folder: Path, attempt: int) -> None:
    aside = aside_of(folder, attempt)
    remove(aside)
    folder.rename(aside)


def write_durably(file: Path, text: str) -> None:
    """Replace a small file atomically, by a new one of a name that nobody could have made a link of before."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(descriptor, 0o644)  # whoever serves it may be another user
            os.fsync(descriptor)
        temporary.rename(file)
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(file.parent)


def altered(file: Path, why: object) -> ConfigurationError:
    """What is said of a file of ours that can't be read any more."""
    return ConfigurationError(f"{file} is not as it was written: {str(why).splitlines()[0]}; restore it from a backup")


def flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def problem(folder: Path, listed: FileRecord) -> str | None:
    """What is wrong with a file, None if it is as its manifest says."""
    file = folder / listed.path
    if not file.resolve().is_relative_to(folder.resolve()):
        return f"{listed.path} lies outside"
    if not file.is_file():
        return f"{listed.path} is missing"
    if (size := file.stat().st_size) != listed.size:
        return f"{listed.path} has {size} bytes instead of {listed.size}"
    algorithm, digest = listed.digest
    if digest_of(file, algorithm) != digest:
        return f"{listed.path} was altered: its {algorithm} differs"
    return None


def read_manifest(folder: Path) -> FolderManifest:
    return FolderManifest.model_validate_json((folder / MANIFEST).read_text())


def alteration(folder: Path, digest: str | None = None) -> str | None:
    """The first thing that is not as the folder's manifest says, or not of this digest; None if all is."""
    try:
        manifest = read_manifest(folder)
    except (OSError, ValueError) as error:
        return f"its manifest can't be read: {str(error).splitlines()[0]}"
    if digest is not None and (own := manifest.digest()) != digest:
        return f"its digest is {own} and was {digest}"
    found = unlisted(folder, manifest) or altered_files(folder, manifest.files)
    return found[0] if found else None


def unlisted(folder: Path, manifest: FolderManifest) -> list[str]:
    """What somebody has added: whoever loads a folder may take any file of it."""
    listed = {entry.path for entry in manifest.files}
    names = [file.relative_to(folder).as_posix() for file in content_files(folder)]
    return [f"{name} was added" for name in names if name not in listed]


def altered_files(folder: Path, entries: list[FileRecord]) -> list[str]:
    """What is wrong with these files, several being read at the same time."""
    with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool:
        return [text for text in pool.map(lambda entry: problem(folder, entry), entries) if text]
