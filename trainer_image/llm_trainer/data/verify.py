"""Whether prepared data is still as it was written, byte by byte: for data that another training has prepared."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llm_trainer.data.manifest import DataManifest, Shard, is_complete
from llm_trainer.data.tokenizer import folder_sha256

READERS = 8  # files hashed at the same time


def alteration(data_folder: Path, manifest: DataManifest) -> str | None:
    """The first thing that is not as the manifest says; None if all is."""
    if manifest.digest != manifest.compute_digest():
        return "manifest.json was altered"
    if not is_complete(data_folder, manifest):
        return "a file of manifest.json is missing or has another size"
    if folder_sha256(data_folder / manifest.tokenizer) != manifest.tokenizer_sha256:
        return f"the folder {manifest.tokenizer} was altered: its sha256 differs"

    def altered(shard: Shard) -> bool:
        with (data_folder / shard.file).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() != shard.sha256

    with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool:
        alterations = zip(manifest.shards, pool.map(altered, manifest.shards), strict=True)
        found = [shard.file for shard, is_altered in alterations if is_altered]
    return f"{found[0]} was altered: its sha256 differs" if found else None
