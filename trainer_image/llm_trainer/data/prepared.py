"""What is prepared on a claim, by any training there: a second one with the same data copies it.

A note of a few hundred bytes in `.llm-operator/prepared` says in which run folder it lies. The data stays that of the
training which made it: each has its own copy, so that none is harmed by what another does or by its end. A note whose
data is gone or altered goes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile

from pydantic import BaseModel

from llm_trainer.data.manifest import DataManifest, is_complete, read_manifest
from llm_trainer.data.verify import alteration
from llm_trainer.runtime.errors import StageError
from llm_trainer.runtime.removal import remove
from llm_trainer.runtime.volumes import refuse_link_out

NOTES = ".llm-operator/prepared"  # of a claim
BLOCK = 4 << 20


class Note(BaseModel):
    """`folder`: of the data, in the claim."""

    folder: str
    digest: str


@dataclass(frozen=True, slots=True)
class Prepared:
    note: Path
    folder: Path
    manifest: DataManifest


def note_prepared(volumes_root: str, data_folder: Path, manifest: DataManifest) -> None:
    """Of a corpus alone: a tokenizer is there as fast from where it came. A note is a help and no duty."""
    if not manifest.shards:
        return
    claim = _claim(volumes_root, data_folder)
    note = Note(folder=data_folder.relative_to(claim).as_posix(), digest=manifest.digest)
    folder = claim / NOTES
    try:
        refuse_link_out(claim / NOTES.partition("/")[0], volumes_root, NOTES)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{manifest.fingerprint}-{hashlib.sha256(note.folder.encode()).hexdigest()[:16]}"
        temporary.write_text(note.model_dump_json())
        temporary.rename(folder / f"{manifest.fingerprint}.json")
    except (OSError, StageError) as error:
        print(f"the prepared data can't be noted for other trainings: {error}", flush=True)


def find_prepared(volumes_root: str, data_folder: Path, fingerprint: str) -> Prepared | None:
    """What another training has made. Nothing is believed of it but what its files show."""
    claim = _claim(volumes_root, data_folder)
    file = claim / NOTES / f"{fingerprint}.json"
    try:
        refuse_link_out(file, volumes_root, NOTES)
        note = Note.model_validate_json(file.read_bytes())
        folder = claim / note.folder
        refuse_link_out(folder, volumes_root, NOTES)
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, StageError):
        remove(file)
        return None
    if ".." in Path(note.folder).parts or folder == data_folder:
        return None
    if manifest is None or (manifest.fingerprint, manifest.digest) != (fingerprint, note.digest):
        remove(file)
        return None
    return Prepared(file, folder, manifest)


def take_over(found: Prepared, into: Path, show: Callable[[], None]) -> DataManifest | None:
    """Copy it, and look at every byte of the copy; None, and no note any more, if one is not as it was written."""
    into.mkdir()
    try:
        if is_complete(found.folder, found.manifest):
            for path in sorted(found.folder.rglob("*")):
                show()
                target = into / path.relative_to(found.folder)
                if path.is_symlink():
                    continue
                if path.is_dir():
                    target.mkdir()
                else:
                    copyfile(path, target)
            copied = read_manifest(into)
            if copied == found.manifest and alteration(into, found.manifest) is None:
                return copied
    except (FileNotFoundError, ValueError):
        pass  # it is being removed, or is no folder of ours
    remove(found.note)
    remove(into)
    return None


def _claim(volumes_root: str, data_folder: Path) -> Path:
    return Path(volumes_root) / data_folder.relative_to(volumes_root).parts[0]
