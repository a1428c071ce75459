"""What a low-rank adapter adapts: the layers of a model by their names, and the experts of a mixture."""

from __future__ import annotations

from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN, _MOE_TARGET_MODULE_MAPPING
from transformers import PreTrainedModel

from llm_trainer.config import Lora
from llm_trainer.models.parameters import LINEAR, dimensions
from llm_trainer.runtime.errors import ConfigurationError

HEADS = frozenset({"lm_head", "score", "embed_out"})
ROUTERS = frozenset({"router"})  # jamba's is a linear layer, the others' are none; what is adapted there can't be shown
# State-space layers, or their kernels, read these weights themselves and would pass an adapter by.
READ_DIRECTLY = frozenset({"dt_proj", "out_proj"})
READ_BY_FAMILY = {"jamba": frozenset({"dt_proj"})}  # where it is known to be fewer


def target_modules(model: PreTrainedModel, lora: Lora) -> list[str]:
    """The last parts of the layers' names. Raises ConfigurationError for those that can't be adapted."""
    layers = linear_layers(model)
    out_of_reach = read_directly(model) | names_of_experts(model)
    if not lora.target_modules:
        return sorted(layers - out_of_reach)
    if unknown := sorted(set(lora.target_modules) - layers):
        raise ConfigurationError(
            f"lora.targetModules: the model has no {', '.join(unknown)}; its linear layers are "
            f"{', '.join(sorted(layers - out_of_reach))}"
        )
    if passed_by := sorted(set(lora.target_modules) & out_of_reach):
        raise ConfigurationError(
            f"lora.targetModules: {', '.join(passed_by)} of {model.config.model_type} can't be adapted by name; remove "
            "it, and set lora.experts if the experts are meant"
        )
    return lora.target_modules


def target_parameters(model: PreTrainedModel, lora: Lora) -> list[str] | None:
    """The experts' stacked weights, each (experts, out, in). Raises ConfigurationError for a model without them."""
    if not lora.experts:
        return None
    found = expert_parameters(model)
    if not found:
        raise ConfigurationError(f"lora.experts: {model.config.model_type} has no experts; remove it")
    check_experts(lora)
    return found


def check_experts(lora: Lora) -> None:
    """Raises ConfigurationError for what peft can't do to stacked weights."""
    if lora.dora:
        raise ConfigurationError(
            "lora.dora: peft can't split the stacked weights of experts into magnitude and direction; remove dora, or "
            "experts"
        )
    if lora.dropout:
        raise ConfigurationError(
            f"lora.dropout: {lora.dropout} can't be applied to the stacked weights of experts; set it to 0, or remove "
            "experts"
        )


def linear_layers(model: PreTrainedModel) -> set[str]:
    """The last parts of their names, without the output's and the routers'."""
    names = (name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, LINEAR))
    return set(names) - HEADS - ROUTERS


def read_directly(model: PreTrainedModel) -> frozenset[str]:
    """Of the layers that are a state-space model's: those with its rates A and its skip D."""
    names = {
        name
        for layer in model.modules()
        if hasattr(layer, "A_log") and hasattr(layer, "D")
        for name, _ in layer.named_children()
    }
    return READ_BY_FAMILY.get(model.config.model_type, READ_DIRECTLY) & names


def expert_parameters(model: PreTrainedModel) -> list[str]:
    """Such as mlp.experts.down_proj, the same in every layer."""
    stacked = (name for name, weight in model.named_parameters() if ".experts." in name and dimensions(weight) == 3)
    return sorted({".".join(name.split(".")[-3:]) for name in stacked})


def names_of_experts(model: PreTrainedModel) -> set[str]:
    """Names that peft takes for the experts', even where a dense layer has them too (its mapping from before 5.0)."""
    pattern = _MODEL_TO_CONVERSION_PATTERN.get(model.config.model_type, "")
    return set(_MOE_TARGET_MODULE_MAPPING.get(pattern, ()))
