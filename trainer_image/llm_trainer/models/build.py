"""Models: from an architecture, or from a transformers folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import is_flash_attn_2_available

from llm_trainer.config import Architecture, Model
from llm_trainer.runtime.errors import ConfigurationError


def attention() -> str:
    """The fastest attention that this machine has; both understand packed position_ids (block-diagonal masks)."""
    return "flash_attention_2" if is_flash_attn_2_available() else "sdpa"


def build(model: Model, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A causal language model in float32, the same on every rank.

    Raises ConfigurationError for a key that the family's config does not have, or a folder that is no model.
    """
    torch.manual_seed(seed)
    if model.architecture is not None:
        return from_architecture(model.architecture, tokenizer)
    return from_folder(Path(model.path or ""))


def from_architecture(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    known = AutoConfig.for_model(architecture.family)
    unknown = sorted(key for key in architecture.config if not hasattr(known, key))
    if unknown:
        raise ConfigurationError(
            f"spec.model.architecture.config: {', '.join(unknown)} is not a key of {type(known).__name__}; remove it"
        )
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **architecture.config,
    }
    if settings["vocab_size"] < len(tokenizer):
        raise ConfigurationError(
            f"spec.model.architecture.config.vocab_size {settings['vocab_size']} is below the tokenizer's "
            f"{len(tokenizer)} tokens; leave it out, it follows from the tokenizer"
        )
    try:
        config = AutoConfig.for_model(architecture.family, **settings)
        created: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, attn_implementation=attention(), dtype=torch.float32
        )
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"spec.model.architecture: {error}") from error
    return created


def from_folder(folder: Path) -> PreTrainedModel:
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{folder} holds no transformers model: there is no config.json")
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation=attention(), dtype=torch.float32
    )
    return loaded
