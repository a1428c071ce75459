"""The arithmetic of a global batch."""

from __future__ import annotations

from llm_trainer.config import TrainingSettings
from llm_trainer.runtime.errors import ConfigurationError


def accumulation_steps(settings: TrainingSettings, world_size: int) -> int:
    """Micro-batches of one process per optimizer step.

    Raises ConfigurationError when the global batch is no multiple of what all processes take at once.
    """
    at_once = settings.micro_batch_size * world_size
    if settings.global_batch_size % at_once:
        raise ConfigurationError(
            f"globalBatchSize {settings.global_batch_size} is no multiple of microBatchSize "
            f"{settings.micro_batch_size} × {world_size} processes = {at_once}"
        )
    return settings.global_batch_size // at_once
