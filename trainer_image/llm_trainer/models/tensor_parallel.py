"""The matrices of each layer shared by neighbouring ranks, by DeepSpeed's AutoTP: all compute the same rows.

Which matrices, and how, is the family's own plan in transformers. Embeddings and the output stay whole: the loss is
made by the output's own module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch.nn import Module
from transformers import PreTrainedConfig

from llm_trainer.models.joined import Joined
from llm_trainer.runtime.errors import ConfigurationError

FIELD = "tensorParallel"
# What a plan may say. Norms of heads are whole, and each rank's gradient of them is of its own heads.
STYLES: dict[str, dict[str, Any]] = {
    "colwise": {"partition_type": "column"},
    "rowwise": {"partition_type": "row"},
    "replicated_with_grad_allreduce": {"partition_type": "skip", "grad_allreduce": True},
    "embedding_rowwise": {"partition_type": "skip"},
}
DIVIDED = ("num_attention_heads", "num_key_value_heads", "intermediate_size")


def tensor_parallel_config(size: int, config: PreTrainedConfig) -> dict[str, Any]:
    """For DeepSpeed. Raises ConfigurationError for a model that can't be shared so."""
    if size == 1:
        return {}
    check_tensor_parallel(config, size)
    specs = [
        {"patterns": [rf".*\.{pattern_of(name)}\.weight$"], **STYLES[style]} for name, style in plan_of(config).items()
    ]
    wanted = {"use_default_specs": False, "layer_specs": specs}
    return {"tensor_parallel": {"autotp_size": size, "vocab_parallel_lm_head": False, "partition_config": wanted}}


def plan_of(config: PreTrainedConfig) -> dict[str, str]:
    """Of the model's layers, by the names of their modules; empty where transformers has none."""
    return dict(getattr(config.get_text_config(decoder=True), "base_model_tp_plan", None) or {})


def pattern_of(name: str) -> str:
    """A regular expression of `layers.*.mlp.up_proj`."""
    return re.escape(name).replace(r"\*", r"\d+")


def can_be_shared(config: PreTrainedConfig) -> bool:
    """Whether AutoTP knows all that the family's plan asks for; it knows no experts."""
    plan = plan_of(config)
    return bool(plan) and set(plan.values()) <= STYLES.keys()


def check_tensor_parallel(config: PreTrainedConfig, size: int) -> None:
    """Raises ConfigurationError."""
    if not can_be_shared(config):
        raise ConfigurationError(
            f"{FIELD}: {size} is not for the family {config.model_type}, whose layers DeepSpeed can't share; use 1"
        )
    for name in DIVIDED:
        count = getattr(config.get_text_config(decoder=True), name, None)
        if count and count % size:
            raise ConfigurationError(f"{FIELD}: the model's {name} {count} is not divisible by {size}; use a divisor")


def shared_layers(model: Module) -> Iterator[tuple[str, Any, int]]:
    """The layers whose matrices are shared: name, module, and along which of its dimensions."""
    from deepspeed.module_inject.layers import LinearAllreduce, LinearLayer

    for name, module in model.named_modules():
        if isinstance(module, LinearLayer | LinearAllreduce):
            yield name, module, 0 if isinstance(module, LinearLayer) else 1


def stored_matrices(model: Module, state: dict[str, Any]) -> dict[str, Any]:
    """`state` with the layers' whole matrices, which are joined as they are written.

    DeepSpeed's own gathering puts other tensors in the place of those that its optimizer writes to.
    """
    for name, module, dimension in shared_layers(model):
        state[f"{name}.weight"] = Joined((module.weight,), module.mp_group, dimension)
        if dimension == 0 and module.bias is not None:
            state[f"{name}.bias"] = Joined((module.bias,), module.mp_group)
    return state
