"""The micro-batches of a stage whose loss is a mean over rows or tokens: a step's rows, put together by their lengths.

So little is padded, and no loss changes: it is the same mean, over the same rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from llm_trainer.data.examples import IGNORED
from llm_trainer.runtime.batch import DataRank
from llm_trainer.runtime.process_group import ProcessGroup
from llm_trainer.stages.micro_batches import MicroBatches, MicroBatchOrder

Places = npt.NDArray[np.int64]


class StepRows:
    """Which rows a step has: the next ones in the order of its epoch, which `MicroBatchOrder` knows.

    Nothing is drawn for it, so any step may be the first.
    """

    def __init__(self, trainer: Any, order: MicroBatchOrder, group: ProcessGroup) -> None:
        self.trainer, self.data, self._within = trainer, DataRank.of(trainer.settings, group), order
        self.steps, self.steps_per_epoch = order.steps, order.steps_per_epoch
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def go_on_at(self, step: int) -> None:
        """After a resume."""

    def places(self, step: int) -> Places:
        """Of a step's rows, the same in every process; fewer in an epoch's last step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.array(self._within.rows(epoch), dtype=np.int64)
        size = self.trainer.settings.global_batch_size
        return self._order[place * size : (place + 1) * size]

    def micro_batches(self, batches: list[Any], tokens: int) -> MicroBatches:
        given, items = self.trainer.get_batch_samples(iter(batches), len(batches), self.trainer.args.device)
        return MicroBatches(given, self._within.each_once(items), tokens)


class GroupedBatches(StepRows):
    """``lengths``: of every row, in tokens."""

    def __init__(self, trainer: Any, order: MicroBatchOrder, group: ProcessGroup, lengths: Places) -> None:
        super().__init__(trainer, order, group)
        self._lengths, self._rows = lengths, trainer.examples(trainer.train_dataset)

    def of(self, step: int) -> MicroBatches:
        size = self.trainer.settings.micro_batch_size
        mine = by_length(self.places(step), self._lengths, size, self.data.size)[self.data.rank]
        collated = [self._batch(rows) for rows in mine]
        return self.micro_batches([batch for batch, _ in collated], sum(tokens for _, tokens in collated))

    def _batch(self, rows: Rows) -> tuple[dict[str, Any], int]:
        """And its tokens. Where the loss is a mean over tokens, a row that only fills has none that counts."""
        batch: dict[str, Any] = self.trainer.data_collator([self._rows[int(place)] for place in rows.places])
        read = batch["attention_mask"]
        if "labels" in batch:
            batch["labels"][torch.from_numpy(rows.again)] = IGNORED
            read = read[torch.from_numpy(~rows.again)]
        return batch, int(read.sum())


class Rows(NamedTuple):
    """Of a micro-batch. ``again``: which of them another one has already, and only fill it."""

    places: Places
    again: npt.NDArray[np.bool_]


def by_length(places: Places, lengths: Places, size: int, processes: int) -> list[list[Rows]]:
    """Of each process its micro-batches, all of `size` rows: the longest rows come together, at the same time in all.

    As accelerate does, an epoch's last step begins again where its rows don't fill every micro-batch.
    """
    count = -(-len(places) // (size * processes))
    filled = np.resize(places, count * size * processes)
    order = np.argsort(-lengths[filled], kind="stable").reshape(count, processes, size)
    return [[Rows(filled[rows], rows >= len(places)) for rows in order[:, process]] for process in range(processes)]
