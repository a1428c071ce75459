"""The arithmetic of a global batch."""

from __future__ import annotations

from typing import NamedTuple

from llm_trainer.config import TrainingSettings
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.process_group import ProcessGroup


class DataRank(NamedTuple):
    """Which of the processes that have rows of their own a process is, and how many there are."""

    rank: int
    size: int

    @classmethod
    def of(cls, settings: TrainingSettings, group: ProcessGroup) -> DataRank:
        """Processes that compute the same rows follow each other, so that they are near: on a node, if it has them."""
        return cls(group.rank // settings.processes_per_row, group.world_size // settings.processes_per_row)


def accumulation_steps(settings: TrainingSettings, world_size: int) -> int:
    """Micro-batches of one process per optimizer step.

    Raises ConfigurationError when the global batch is no multiple of what all processes take at once.
    """
    for name, size in settings.shared_work.items():
        if world_size % size:
            raise ConfigurationError(f"{name} {size}: the {world_size} processes are not divisible by it")
    at_once = settings.micro_batch_size * (world_size // settings.processes_per_row)
    if settings.global_batch_size % at_once:
        shared = "".join(f" / {name} {size}" for name, size in settings.shared_work.items() if size > 1)
        raise ConfigurationError(
            f"globalBatchSize {settings.global_batch_size} is no multiple of microBatchSize "
            f"{settings.micro_batch_size} × {world_size} processes{shared} = {at_once}"
        )
    return settings.global_batch_size // at_once
