"""A model that has read the corpus before goes on in it where it was: no row twice before each was read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_trainer.checkpoint.files import MANIFEST, read_manifest
from llm_trainer.checkpoint.record import StageRecord, read_record
from llm_trainer.checkpoint.rollbacks import place_of, read_rollbacks
from llm_trainer.config import Mixture, Pretrain, StageConfig, local_path
from llm_trainer.config.allotment import Part
from llm_trainer.data.mixture import Order
from llm_trainer.data.sequences import MixedSequences, Rows, Sequences, manifest_of, parts_of
from llm_trainer.stages.differences import DATA

RESULTS, STAGES = "results", "/stages/"
UNENDING_ROWS = 1 << 20  # of a pattern that begins again: of who reads the corpus without a budget


@dataclass(frozen=True)
class Earlier:
    """A stage that has read rows in the same order."""

    settings: Mapping[str, Any]  # of its pretrain, as its record has them
    rows: int  # that its result has learned from

    @property
    def mixture(self) -> Mixture | None:
        written = self.settings.get("mixture")
        return Mixture.model_validate(written) if written is not None else None

    @property
    def total_rows(self) -> int:
        names = ("steps", "tokens", "sequenceLength", "globalBatchSize")
        return Pretrain.model_validate({name: self.settings.get(name) for name in names}).total_rows


def sequences_of(config: StageConfig, settings: Pretrain) -> Rows:
    """The rows of a pretrain stage, from those on to which the model that it starts from has read the corpus.

    Raises ConfigurationError and DataError as `Order` does.
    """
    folder, length, seed = Path(config.data_folder), settings.sequence_length, settings.seed
    if settings.mixture is None:
        return one_text(config, length, seed)
    manifest = manifest_of(folder)
    before = earlier_stages(config, manifest.digest, length, seed, mixed=True)
    starts = rows_by_source(before, parts_of(manifest, length))
    return MixedSequences(folder, length, seed, settings.mixture, settings.total_rows, starts)


def sequences_beside(config: StageConfig, length: int, seed: int) -> Rows:
    """The rows of a stage that goes on pretraining beside its own work, such as PPO's `ptx`.

    In the shares of the stage that its model was pretrained in, without their schedule and limits: how many rows it
    reads follows from rows of a dataset.
    """
    folder = Path(config.data_folder)
    manifest = manifest_of(folder)
    before = earlier_stages(config, manifest.digest, length, seed, mixed=True)
    if not before or (mixture := before[-1].mixture) is None:
        return one_text(config, length, seed)
    shares = mixture.model_copy(update={"schedule": None, "max_epochs": None})
    starts = rows_by_source(before, parts_of(manifest, length))
    return MixedSequences(folder, length, seed, shares, UNENDING_ROWS, starts)


def one_text(config: StageConfig, length: int, seed: int) -> Sequences:
    sequences = Sequences(Path(config.data_folder), length, seed)
    before = earlier_stages(config, sequences.manifest.digest, length, seed, mixed=False)
    sequences.first = sum(stage.rows for stage in before)
    return sequences


def rows_by_source(before: list[Earlier], parts: list[Part]) -> dict[str, int]:
    """How many rows of each source these stages have read, one after the other."""
    read = [0] * len(parts)
    for stage in before:
        length = int(stage.settings["sequenceLength"])
        order = Order(stage.mixture or Mixture(), parts, stage.total_rows, length, read, "pretrain.mixture")
        read = order.read(stage.rows)
    return {part.source: rows for part, rows in zip(parts, read, strict=True) if rows}


def earlier_stages(config: StageConfig, data: str, length: int, seed: int, *, mixed: bool) -> list[Earlier]:
    uri = config.model.uri if config.model else None
    return stages_before(uri, config.volumes_root, data, length, seed, mixed=mixed)


def stages_before(
    model_uri: str | None, volumes_root: str, data: str, length: int, seed: int, *, mixed: bool
) -> list[Earlier]:
    """The stages by which a model has learned from the data of this digest, in the order of this length and seed.

    They are told by the records in their folders, one after the other. With another corpus, length or seed, or by
    source where the other is not (`mixed`), the order is another one, which begins at 0; so does a model that no
    training of ours has made. The first that was trained is the first.
    """
    found = list[Earlier]()
    for record, folder in makers_of(model_uri, volumes_root):
        if settings := record.config.get("pretrain"):
            own = (record.digests.get(DATA), settings.get("sequenceLength"), settings.get("seed"))
            if own != (data, length, seed) or mixed != (settings.get("mixture") is not None):
                break
            made = place_of(read_manifest(folder).step or 0, read_rollbacks(folder.parent.parent / "checkpoints"))
            found.insert(0, Earlier(settings, made * int(settings["globalBatchSize"])))
    return found


def makers_of(model_uri: str | None, volumes_root: str) -> Iterator[tuple[StageRecord, Path]]:
    """The stages of ours that made a model, the last one first, and the folders of their results."""
    seen = set[str]()
    while model_uri and model_uri not in seen:
        seen.add(model_uri)
        folder = Path(local_path(model_uri, volumes_root))
        record = read_record(folder.parent.parent) if folder.parent.name == RESULTS else None
        if record is None or not (folder / MANIFEST).is_file():
            return
        yield record, folder
        before = (record.config.get("model") or {}).get("uri")
        model_uri = record.moved(before, model_uri.rpartition(STAGES)[0]) if before else None
