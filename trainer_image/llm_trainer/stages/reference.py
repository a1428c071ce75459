"""The reference of a preference stage: log-probabilities of the starting model, computed once for all nodes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import torch
from trl.models.utils import prepare_deepspeed

from llm_trainer.checkpoint.fence import Fence, temporary_name
from llm_trainer.runtime.removal import remove
from llm_trainer.stages.trl_stage import StageTrainer


class ReferenceTrainer(StageTrainer):
    """Comes before TRL's DPOTrainer or KTOTrainer, which call `_precompute_ref_logps` as they are made.

    ``reference_columns``: where they expect what `compute_ref_log_probs` gives.
    """

    reference_columns: ClassVar[tuple[str, ...]]

    # TRL's own
    compute_ref_log_probs: Any
    _precompute_engine: Any

    def _precompute_ref_logps(self, dataset: datasets.Dataset, name: str, batch_size: int) -> datasets.Dataset:
        """Replaces TRL's, which needs a cache that all hosts share: each rank computes its rows, then all have all.

        Kept in the stage's folder, so that the next attempt reads them.
        """
        file = self.run.stage_folder / f"reference-{name}.npz"
        key = self._reference_key(dataset)
        found = np.load(file) if self.run.group.is_first and file.is_file() else {}
        good = bool(found) and str(found["key"]) == key
        kept = np.stack([found[column] for column in self.reference_columns]) if good else None
        kept = self.run.group.first_array(kept)
        known = None if kept is None else dict(zip(self.reference_columns, kept, strict=True))
        if known is None:
            known = self._reference(dataset, batch_size)
            if self.run.group.is_first:
                self._keep(file, key, known)
        for column, values in known.items():
            dataset = dataset.add_column(column, values.tolist())
        return dataset

    def _keep(self, file: Path, key: str, known: dict[str, Any]) -> None:
        """Whole or not at all, and not by an attempt that may not write any more; raises as `Fence.check` does."""
        for left in file.parent.glob(f".tmp-*-{file.name}"):
            remove(left)
        temporary = file.with_name(temporary_name(self.run.config, file.name))
        with temporary.open("wb") as stream:
            np.savez(stream, key=np.array(key), **known)
        Fence(self.run.config).check()
        temporary.rename(file)

    def _reference_key(self, dataset: datasets.Dataset) -> str:
        """Of the rows and the model that the figures are for."""
        digest = hashlib.sha256(json.dumps(self.run.config.model_folder).encode())
        for row in self.examples(dataset):
            digest.update(json.dumps(row).encode())
        return digest.hexdigest()

    def _reference(self, dataset: datasets.Dataset, batch_size: int) -> dict[str, Any]:
        """Of every row, by column; a collective."""
        group = self.run.group
        if self._precompute_engine is None:
            self._precompute_engine = prepare_deepspeed(self.model, self.accelerator)
        rows = self.examples(dataset)
        share = -(-len(rows) // group.world_size)
        mine = [index % len(rows) for index in range(group.rank * share, (group.rank + 1) * share)]
        parts = []
        for begin in range(0, share, batch_size):
            examples = [rows[index] for index in mine[begin : begin + batch_size]]
            batch = self._prepare_inputs(self.data_collator(examples))  # type: ignore[attr-defined]
            with (
                self.compute_loss_context_manager()
            ):  # the precision of the training: equal models must give equal numbers
                answers = self.compute_ref_log_probs(self._precompute_engine, batch)
            found = [part for part in answers if part is not None]
            parts.append(torch.stack(found).cpu().numpy())
            self.run.watchdog.beat()
        everyone = np.concatenate(group.gather_array(np.concatenate(parts, axis=1)), axis=1)[:, : len(rows)]
        return dict(zip(self.reference_columns, everyone, strict=True))
