"""A model that has read the corpus before goes on in it where it was: no row twice before each was read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_trainer.checkpoint.files import MANIFEST, read_manifest
from llm_trainer.checkpoint.record import StageRecord, read_record
from llm_trainer.config import StageConfig, local_path
from llm_trainer.data.sequences import Sequences
from llm_trainer.stages.differences import DATA

RESULTS, STAGES = "results", "/stages/"


def sequences_of(config: StageConfig, length: int, seed: int) -> Sequences:
    """The prepared corpus, from the row on to which the model that the stage starts from has read it."""
    sequences = Sequences(Path(config.data_folder), length, seed)
    uri = config.model.uri if config.model else None
    sequences.first = rows_read(uri, config.volumes_root, sequences.manifest.digest, length, seed)
    return sequences


def rows_read(model_uri: str | None, volumes_root: str, data: str, length: int, seed: int) -> int:
    """From how many rows of the data of this digest, in the order of this length and seed, a model has learned.

    The stages that made the model are told by the records in their folders, one after the other. With another corpus,
    length or seed the order is another one, which begins at 0; so does a model that no training of ours has made.
    """
    rows, seen = 0, set[str]()
    while model_uri and model_uri not in seen:
        seen.add(model_uri)
        folder = Path(local_path(model_uri, volumes_root))
        record = read_record(folder.parent.parent) if folder.parent.name == RESULTS else None
        if record is None or not (folder / MANIFEST).is_file():
            return rows
        settings = record.config.get("pretrain")
        if settings and not _same_order(record, settings, data, length, seed):
            return rows
        if settings:
            rows += (read_manifest(folder).step or 0) * int(settings["globalBatchSize"])
        before = (record.config.get("model") or {}).get("uri")
        model_uri = record.moved(before, model_uri.rpartition(STAGES)[0]) if before else None
    return rows


def _same_order(record: StageRecord, settings: dict[str, Any], data: str, length: int, seed: int) -> bool:
    own = (record.digests.get(DATA), settings.get("sequenceLength"), settings.get("seed"))
    return own == (data, length, seed)
