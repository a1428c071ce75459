"""Whether prepared data is still as it was written, byte by byte: for data that another training has prepared."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from llm_trainer.data.manifest import DataManifest, Shard, is_complete
from llm_trainer.data.tokenizer import folder_sha256

READERS = 8  # files hashed at the same time


def _is_as_it_was(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == sha256


def _has_ends_of(shard: Shard, index: Path) -> bool:
    """Whether these are ends of so many documents: each after the one before, the last where the tokens end."""
    ends = np.fromfile(index, dtype="<i8")
    return len(ends) == shard.documents and bool((np.diff(ends, prepend=0) > 0).all()) and ends[-1] == shard.tokens


def alteration(data_folder: Path, manifest: DataManifest) -> str | None:
    """The first thing that is not as the manifest says; None if all is."""
    if manifest.digest != manifest.compute_digest():
        return "manifest.json was altered"
    if not is_complete(data_folder, manifest):
        return "a file of manifest.json is missing or has another size"
    if folder_sha256(data_folder / manifest.tokenizer) != manifest.tokenizer_sha256:
        return f"the folder {manifest.tokenizer} was altered: its sha256 differs"

    if manifest.quality and not _is_as_it_was(data_folder / manifest.quality.report, manifest.quality.sha256):
        return f"{manifest.quality.report} was altered or is missing"

    def altered(shard: Shard) -> bool:
        file = data_folder / shard.file
        return not (_is_as_it_was(file, shard.sha256) and _has_ends_of(shard, file.with_suffix(".idx")))

    with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool:
        alterations = zip(manifest.shards, pool.map(altered, manifest.shards), strict=True)
        found = [shard.file for shard, is_altered in alterations if is_altered]
    return f"{found[0]} was altered: its sha256 differs" if found else None
