"""What a stage is made from is checked before it is loaded: that it lies in its claim and is as it was written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from llm_trainer.checkpoint.files import MANIFEST, alteration
from llm_trainer.config import StageConfig, local_path
from llm_trainer.data.manifest import read_manifest as read_data_manifest
from llm_trainer.models.adapter import base_of, is_adapter
from llm_trainer.runtime.errors import DataError
from llm_trainer.runtime.volumes import refuse_links_out
from llm_trainer.stages.differences import DATA, input_uris

SWITCH_SECONDS = 0.0005


@contextmanager
def verified(config: StageConfig, rank: int) -> Iterator[None]:
    """Rank 0 looks at the files while the body runs, which imports the stage's libraries, and ends the attempt if need.

    The others load meanwhile what may turn out to be altered: weights are safetensors, which run nothing, and no rank
    makes a step without rank 0. Raises DataError.
    """
    if rank != 0:
        yield
        return
    with ThreadPoolExecutor(1, "verify") as thread, often_switched():
        done = thread.submit(verify, config)
        yield
        done.result()


@contextmanager
def often_switched() -> Iterator[None]:
    """A thread that hashes needs the interpreter's lock between two blocks of 0.2 ms; an import gives it every 5 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def verify(config: StageConfig) -> None:
    """Raises DataError for an input that leads out of its claim or isn't what the status, or its manifest, tells."""
    for name, uri in folders_of(config).items():
        folder = Path(local_path(uri, config.volumes_root))
        refuse_links_out(folder, config.volumes_root, f"{name} {uri}")
        if problem := (
            altered_data(folder, config.digests.get(uri)) if name == DATA else altered_model(config, uri, folder)
        ):
            raise DataError(f"{name} {uri} is not used: {problem}; restore it, or train the stage that made it anew")


def folders_of(config: StageConfig) -> dict[str, str]:
    """By the fields in which a user names them."""
    if (prepare := config.prepare_data) is None:
        return input_uris(config)
    named = {"spec.tokenizer.uri": prepare.tokenizer.uri, "spec.model.uri": prepare.model_uri}
    return {name: uri for name, uri in named.items() if uri}


def altered_model(config: StageConfig, uri: str, folder: Path) -> str | None:
    """None also for a folder that no training of ours has made."""
    known = config.digests.get(uri)
    if known is None and not (folder / MANIFEST).is_file():
        return None
    if problem := alteration(folder, known):
        return problem
    if not is_adapter(folder) or config.prepare_data:
        return None
    base = base_of(folder, config.volumes_root)
    refuse_links_out(base.folder, config.volumes_root, f"the base {base.uri}")
    problem = alteration(base.folder, base.digest) if base.digest else None
    return f"of its base {base.uri}, {problem}" if problem else None


def altered_data(folder: Path, known: str | None) -> str | None:
    """By its manifest alone: to read the whole corpus at each start would cost more than it tells."""
    manifest = read_data_manifest(folder)
    if manifest is None or known is None:
        return None  # whoever reads it says what is missing
    found = manifest.compute_digest()
    return None if found == known else f"its digest is {found} and was {known}"
