"""An adapter's folder and the base that it belongs to. What needs peft is in low_rank.py: it takes long to import."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llm_trainer.checkpoint.files import MANIFEST, read_manifest
from llm_trainer.checkpoint.record import read_record
from llm_trainer.config import Lora, StageConfig, local_path
from llm_trainer.runtime.errors import ConfigurationError

ADAPTER_FILE = "adapter_config.json"


@dataclass(frozen=True)
class Base:
    """The model that an adapter belongs to."""

    uri: str
    folder: Path
    digest: str | None  # None for a folder that no training of ours has written


def find_base(uri: str, volumes_root: str) -> Base:
    folder = Path(local_path(uri, volumes_root))
    return Base(uri, folder, read_manifest(folder).digest() if (folder / MANIFEST).is_file() else None)


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_FILE).is_file()


def base_of(folder: Path, volumes_root: str) -> Base:
    """The base of an adapter that a stage has written.

    Raises ConfigurationError if it is not the one that the adapter was trained on.
    """
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else None
    if manifest is None or manifest.base is None:
        raise ConfigurationError(f"the adapter {folder} does not say which model it belongs to; merge it into its base")
    base = find_base(moved(manifest.base, folder, volumes_root), volumes_root)
    if base.digest != manifest.base_digest:
        raise ConfigurationError(
            f"the adapter {folder} was trained on {manifest.base} with digest {manifest.base_digest}, which now has "
            f"{base.digest}; restore that model or train the adapter again"
        )
    return base


def moved(base: str, folder: Path, volumes_root: str) -> str:
    """Where the base of an adapter in RUN/stages/STAGE/results/STEP is: RUN may have been restored to another place."""
    if len(folder.parents) < 4 or (record := read_record(folder.parents[1])) is None:
        return base
    return record.moved(base, "pvc://" + folder.parents[3].relative_to(volumes_root).as_posix())


def check_start(config: StageConfig, lora: Lora, modules: Iterable[str]) -> None:
    """Raises ConfigurationError for a start that an adapter of these modules can't belong to."""
    folder = config.model_folder
    if folder is None:
        raise ConfigurationError("lora: a model from scratch has no weights to adapt; remove it")
    if is_adapter(Path(folder)) and not is_own(config):
        raise ConfigurationError(
            f"lora: the stage starts from an adapter of another training, {folder}, and an adapter needs a whole model "
            "as its base; merge it into its base"
        )
    if before := started_from(config):
        check_joined(before, lora, set(modules))


def check_joined(before: Path, lora: Lora, modules: set[str]) -> None:
    """Raises ConfigurationError unless both adapters can be written as one."""
    told = json.loads((before / ADAPTER_FILE).read_bytes())
    known = set(told["target_modules"])
    if lora.dora or lora.experts or told.get("use_dora") or told.get("target_parameters"):
        raise ConfigurationError(
            f"lora: the stage goes on with the adapter {before}, and by DoRA, or for experts, two can't be joined; set "
            "lora.merge in the stage that makes it"
        )
    if known != modules:
        raise ConfigurationError(
            f"lora.targetModules: the stage goes on with the adapter {before} of {', '.join(sorted(known))}, and both "
            "must adapt the same modules; use the same, or set lora.merge in the stage that makes it"
        )


def is_own(config: StageConfig) -> bool:
    """Whether the stage starts from what a stage of the same training has made."""
    return bool(config.model and config.model.uri and config.model.uri.startswith(f"{config.run_uri}/"))


def started_from(config: StageConfig) -> Path | None:
    """The adapter with which a stage that trains one goes on."""
    folder = Path(config.model_folder) if config.model_folder else None
    return folder if folder and is_adapter(folder) else None
