"""A model from scratch that a function of the user's makes, such as one with weights of its own choice.

It must be what transformers makes of its configuration, but for the numbers: a result is a transformers folder, which
whoever loads it, vLLM included, rebuilds from the configuration alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import Module
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.functions import call, check_signature, load_function

FIELD = "spec.model.architecture.function"
WRITTEN = "(config, tokenizer)"
UNDECIDING = ("dtype", "architectures", "transformers_version")  # of a configuration's keys


def make_model(
    name: str, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, implementation: str
) -> PreTrainedModel:
    """`config` is the family's, with the keys of the user and of the tokenizer. In float32, on the default device.

    Data preparation calls this under the meta device, where it costs no memory. Raises ConfigurationError.
    """
    function = load_function(name, FIELD)
    check_signature(function, name, FIELD, WRITTEN, config, tokenizer)
    try:
        made = call(function, name, FIELD, copy.deepcopy(config), tokenizer)
    except ConfigurationError as error:
        if torch.get_default_device().type != "meta":
            raise
        raise ConfigurationError(
            f"{error}; data preparation calls it on torch's meta device, where tensors have no values to ask for"
        ) from error
    if not isinstance(made, PreTrainedModel):
        raise problem(name, f"gave a {type(made).__name__}; it must return a transformers.PreTrainedModel")
    with torch.device("meta"):
        expected = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=torch.float32)
    if found := next(differences(made, expected), None):
        raise problem(name, f"{found}, so that no transformers folder could hold it; it may choose the weights alone")
    made = made.to(torch.float32)
    made.set_attn_implementation(implementation)
    if bad := next((name for name, weight in made.named_parameters() if not is_finite(weight)), None):
        raise problem(name, f"gave a model whose {bad} is not finite; mend how it is made")
    return made


def problem(name: str, said: str) -> ConfigurationError:
    return ConfigurationError(f"{FIELD}: {name} {said}")


def is_finite(weight: torch.Tensor) -> bool:
    return weight.is_meta or bool(torch.isfinite(weight).all())


def differences(made: PreTrainedModel, expected: PreTrainedModel) -> Iterator[str]:
    """Between a model and what transformers makes of the configuration, as a user would say it."""
    if made.config.model_type != expected.config.model_type:
        yield f"gave a {made.config.model_type} model where the family is {expected.config.model_type}"
    ours, theirs = keys_of(expected.config), keys_of(made.config)
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            yield f"changed {key} of the configuration to {theirs.get(key)!r}: set it in architecture.config"
    yield from unlike("module", classes_of(expected), classes_of(made))
    yield from unlike("weight", shapes_of(expected), shapes_of(made))


def unlike(what: str, expected: dict[str, str], made: dict[str, str]) -> Iterator[str]:
    for name in [*expected, *made]:
        if expected.get(name) != made.get(name):
            has, wanted = made.get(name, "missing"), expected.get(name, "none")
            yield f"gave a model whose {what} {name or 'itself'} is {has} and in transformers' own is {wanted}"


def keys_of(config: PreTrainedConfig) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in UNDECIDING}


def classes_of(model: Module) -> dict[str, str]:
    kinds = {name: type(module) for name, module in model.named_modules()}
    return {name: f"{kind.__module__}.{kind.__qualname__}" for name, kind in kinds.items()}


def shapes_of(model: Module) -> dict[str, str]:
    """Tied weights have one name."""
    return {name: f"of {list(parameter.shape)}" for name, parameter in model.named_parameters()}
