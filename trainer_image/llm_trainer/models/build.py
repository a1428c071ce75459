"""Models: from an architecture, or from a transformers folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from llm_trainer.config import Architecture, StageConfig
from llm_trainer.config.training import EXTRA_KEYS
from llm_trainer.models.adapter import base_of, is_adapter
from llm_trainer.models.attention import attention, computes_in_half
from llm_trainer.models.model_function import make_model
from llm_trainer.models.placement import HERE, Placement
from llm_trainer.models.quantization import quantized_loading
from llm_trainer.models.scratch import made
from llm_trainer.models.weights import load, model_config, read_config
from llm_trainer.runtime.errors import ConfigurationError

# How transformers computes without being told; vLLM reads it from the configuration.
UNSAID: dict[str, dict[str, Any]] = {"deepseek_v3": {"topk_method": "noaux_tc", "scoring_func": "sigmoid"}}
# What vLLM reads by other names than transformers': public models have them besides, or have sizes that it supposes.
ALIASES = {
    "lfm2": {"block_dim": "hidden_size", "conv_dim": "hidden_size"},
    "phi": {"n_inner": "intermediate_size"},
}


def said_to_vllm(family: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the keys that vLLM wants besides those of transformers."""
    aliases = ALIASES.get(family)
    known = AutoConfig.for_model(family, **config) if aliases else None
    said = {alias: getattr(known, key) for alias, key in (aliases or {}).items()}
    return {**UNSAID.get(family, {}), **said, **config}


def build(config: StageConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """The stage's language model, the same on every rank; an adapter comes merged into its base.

    Its weights are where and as the stage's engine wants them (`Placement.of`): float32 on CPU. With ZeRO-3 they are
    spread over the processes, which have joined each other before.

    Raises ConfigurationError for a key that the family's config does not have, or a folder that is no such model.
    """
    torch.manual_seed(seed)
    placement, half = Placement.of(config), computes_in_half(config)
    if config.model and config.model.architecture:
        architecture = config.model.architecture
        return made(lambda: from_architecture(architecture, tokenizer, half=half), placement)
    folder = Path(config.model_folder or "")
    return from_folder(folder, config.volumes_root, placement, half=half, **quantized_loading(config))


def build_reward_model(config: StageConfig, seed: int) -> PreTrainedModel:
    """The stage's model with a new head that gives one number, the same on every rank.

    Raises ConfigurationError if transformers has no such model of the family.
    """
    folder = Path(config.model_folder or "")
    if is_adapter(folder):
        raise ConfigurationError(f"a reward model can't start from the adapter {folder}; set lora.merge in its stage")
    quantized = quantized_loading(config)
    model_config(folder, quantized=bool(quantized))
    implementation = implementation_for(folder, half=computes_in_half(config))
    placement = None if quantized else Placement.of(config)
    torch.manual_seed(seed)
    try:
        return load(
            AutoModelForSequenceClassification, folder, new={"score.weight"}, num_labels=1, placement=placement,
            attn_implementation=implementation, **quantized,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigurationError(f"there is no reward model of this family: {error}") from error


def check_architecture(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model on the meta device, which takes no memory for weights.

    Raises ConfigurationError for an architecture that transformers can't build, whatever its code then raises.
    """
    try:
        with torch.device("meta"):
            return from_architecture(architecture, tokenizer)
    except ConfigurationError:
        raise
    except Exception as error:
        raise no_model(error) from error


def no_model(error: Exception) -> ConfigurationError:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return ConfigurationError(f"spec.model.architecture: transformers makes no model of it, {said}")


def from_architecture(
    architecture: Architecture, tokenizer: PreTrainedTokenizerBase, *, half: bool = False
) -> PreTrainedModel:
    if architecture.family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ConfigurationError(
            f"spec.model.architecture.family: transformers has no language model {architecture.family}; correct it"
        )
    known = AutoConfig.for_model(architecture.family)
    unknown = sorted(key for key in architecture.config if not hasattr(known, key) and key not in EXTRA_KEYS)
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
        config = AutoConfig.for_model(architecture.family, **said_to_vllm(architecture.family, settings))
        implementation = attention(config, half=half).implementation
        if architecture.function:
            return make_model(architecture.function, config, tokenizer, implementation)
        created: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, attn_implementation=implementation, dtype=torch.float32
        )
    except (TypeError, ValueError, ZeroDivisionError, KeyError, StrictDataclassError) as error:
        raise no_model(error) from error
    return created


def from_folder(
    folder: Path, volumes_root: str, placement: Placement = HERE, *, half: bool, **quantized: Any
) -> PreTrainedModel:
    """`quantized`: arguments of `from_pretrained` for a whole model."""
    base = base_of(folder, volumes_root).folder if is_adapter(folder) else folder
    model_config(base, quantized=bool(quantized))
    implementation = implementation_for(base, half=half)
    if base != folder:
        from llm_trainer.models.low_rank import merged

        whole = merged(base, folder, placement)
        whole.set_attn_implementation(implementation)
        return whole
    where = None if quantized else placement
    return load(AutoModelForCausalLM, folder, placement=where, attn_implementation=implementation, **quantized)


def implementation_for(folder: Path, *, half: bool) -> str:
    """The attention of the model in a folder, as transformers names it. Raises ConfigurationError for none."""
    return attention(read_config(folder), half=half).implementation
