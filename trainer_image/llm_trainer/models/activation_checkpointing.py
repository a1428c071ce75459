"""Activations that are made again in the backward pass instead of kept (Chen et al. 2016)."""

from __future__ import annotations

from typing import Any

from llm_trainer.runtime.errors import ConfigurationError


def checkpoint_activations(model: Any, *, asked: bool) -> None:
    """Each layer keeps its input alone. Raises ConfigurationError where the family can't and the user has asked."""
    if model.supports_gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    elif asked:
        raise ConfigurationError(
            f"activationCheckpointing: transformers has none for {model.config.model_type} models; leave it out, and "
            "lower microBatchSize or the length of the rows if memory is short"
        )
