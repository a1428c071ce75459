"""The micro-batches of a stage whose rows share places: the same rows in each step, in fewer and fuller ones.

A step has the rows that it would have without packing, and its loss is a mean over their tokens, so packing changes no
loss, no number of steps and nothing in what an epoch is.
"""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
import torch

from llm_trainer.data.bins import Bin, shares
from llm_trainer.data.examples import IGNORED
from llm_trainer.models.attention import boundaries
from llm_trainer.runtime.process_group import ProcessGroup
from llm_trainer.stages.grouped_batches import Places, StepRows
from llm_trainer.stages.micro_batches import MicroBatches, MicroBatchOrder


class PackedBatches(StepRows):
    """Rows of `input_ids` and `labels` that share places of maxLength tokens."""

    def __init__(self, trainer: Any, order: MicroBatchOrder, group: ProcessGroup) -> None:
        super().__init__(trainer, order, group)
        self._rows = trainer.train_dataset.with_format("numpy", columns=["input_ids", "labels"])
        self._lengths = lengths_of(trainer.train_dataset, "input_ids")

    def of(self, step: int) -> MicroBatches:
        settings, places = self.trainer.settings, self.places(step)
        mine = shares(self._lengths[places].tolist(), settings.max_length, self.data.size, settings.micro_batch_size)[
            self.data.rank
        ]
        tokens = sum(int(self._lengths[places[place]]) for bins in mine for row in bins for place in row)
        return self.micro_batches([self._batch(places, bins) for bins in mine], tokens)

    def _batch(self, places: Places, bins: list[Bin]) -> dict[str, Any]:
        """Without a row a process still takes part, as the weights of ZeRO-3 come from all: by one that has no loss."""
        rows = [[self._rows[int(places[place])] for place in places_of_bin] for places_of_bin in bins]
        idle = not rows
        batch = packed(rows or [[self._rows[int(places[0])]]], self.trainer.data_collator.pad_token_id)
        if idle:
            batch["labels"] = torch.full_like(batch["labels"], IGNORED)
        return batch | boundaries(self.trainer.model.config._attn_implementation, batch["position_ids"])


def lengths_of(dataset: datasets.Dataset, column: str) -> Places:
    """Tokens of each row."""
    counted: Places = pc.list_value_length(dataset.data.column(column)).to_numpy().astype(np.int64)
    return counted


def packed(rows: list[list[dict[str, Any]]], padding: int) -> dict[str, torch.Tensor]:
    """`input_ids`, `labels` and `position_ids`, (rows, longest), of the examples that each row has behind each other.

    Positions restart with each example, and in what is padded. Nothing is learned from how an example begins, as
    without packing.
    """
    length = max(sum(len(example["input_ids"]) for example in row) for row in rows)
    tokens = torch.full((len(rows), length), padding, dtype=torch.long)
    labels = torch.full((len(rows), length), IGNORED, dtype=torch.long)
    positions = torch.arange(length).repeat(len(rows), 1)
    for number, row in enumerate(rows):
        begin = 0
        for example in row:
            end = begin + len(example["input_ids"])
            tokens[number, begin:end] = torch.as_tensor(example["input_ids"])
            labels[number, begin:end] = torch.as_tensor(example["labels"])
            labels[number, begin] = IGNORED
            positions[number, begin:end] = torch.arange(end - begin)
            begin = end
        positions[number, begin:] = torch.arange(length - begin)
    return {"input_ids": tokens, "labels": labels, "position_ids": positions}
