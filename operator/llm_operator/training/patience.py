"""How long a stage's pods may take to save, by what they save. Pure."""

from __future__ import annotations

import math

from llm_operator.api.memory import StageMemory, stage_memory
from llm_operator.api.training import LLMTrainingSpec

DISK_BYTES_PER_SECOND = 200e6  # that a claim takes of all pods together; for a slower one the user gives the grace
GRACE_SECONDS = 120  # from SIGTERM to SIGKILL, for a model that is small or whose size the spec doesn't tell
PATIENCE_SECONDS = 1800


def saved_bytes(memory: StageMemory) -> int:
    """Of a checkpoint: weights and the optimizer's state of the models that learn whole."""
    learning = sum(model.parameters for model in memory.models if model.learns)
    return math.ceil(learning * (memory.weights + memory.state))


def seconds_to_save(spec: LLMTrainingSpec, index: int) -> float:
    """By the stage with this place in spec.stages; 0 where the spec doesn't tell how large its model is."""
    memory = stage_memory(spec, index) if index >= 0 else None
    return saved_bytes(memory) / DISK_BYTES_PER_SECOND if memory else 0.0


def grace_seconds(spec: LLMTrainingSpec, index: int) -> int:
    """For the checkpoint that is being written, and for the one after the step under way."""
    return max(GRACE_SECONDS, math.ceil(60 + 2 * seconds_to_save(spec, index)))


def patience_seconds(spec: LLMTrainingSpec, index: int) -> int:
    """For which processes wait for each other, say for rank 0's result."""
    return max(PATIENCE_SECONDS, math.ceil(3 * seconds_to_save(spec, index)))
