"""A learning rate that serves a wider model of the same shape: the maximal update parametrisation (Yang et al. 2022,
"Tensor Programs V", table 3), for AdamW.

With `ratio` = base width / width, matrices from hidden to hidden get the rate × ratio and an initialisation × √ratio,
the output's matrix both × ratio; embeddings, norms and biases keep theirs. Their weight decay is divided by the ratio:
AdamW multiplies it by the rate, and what decays in a step must not depend on the width. The output's multiplier of the
paper's table 8 is in its rate and initialisation here, which for Adam is the same: so the result is a model as any
other, and whoever serves it needs to know nothing. Attention keeps 1/√d, as heads keep their size.
"""

from __future__ import annotations

import math

import torch
from torch.nn import Parameter
from transformers import PreTrainedModel

from llm_trainer.config import WIDTH_FAMILIES, Pretrain, TrainingSettings
from llm_trainer.models.packing import innermost
from llm_trainer.models.parameters import hidden_matrices
from llm_trainer.models.placement import is_spread
from llm_trainer.runtime.errors import ConfigurationError

FIELD = "pretrain.tune.baseWidth"


def base_width(settings: TrainingSettings) -> int | None:
    return settings.tune.base_width if isinstance(settings, Pretrain) and settings.tune else None


def width_ratio(model: PreTrainedModel, settings: TrainingSettings) -> float:
    """Base width over the model's; 1 if none is given. Raises ConfigurationError for a model of no known scaling."""
    base = base_width(settings)
    if base is None:
        return 1.0
    config = model.config
    if config.model_type not in WIDTH_FAMILIES:
        raise ConfigurationError(
            f"{FIELD}: how rates scale is not known of the family {config.model_type}; leave it out, or use one of "
            f"{', '.join(WIDTH_FAMILIES)}"
        )
    if output_of(model) is model.get_input_embeddings().weight:
        raise ConfigurationError(
            f"{FIELD}: output and embeddings are one matrix and would need two rates; set tie_word_embeddings: false"
        )
    return base / int(config.hidden_size)


def output_of(model: PreTrainedModel) -> Parameter:
    weight = model.get_output_embeddings().weight
    assert isinstance(weight, Parameter)  # noqa: S101 -- of a language model
    return weight


def narrowed(model: torch.nn.Module) -> set[int]:
    """Identities of the weights whose rate goes with the ratio."""
    language = innermost(model)
    assert isinstance(language, PreTrainedModel)  # noqa: S101 -- a pretrain stage has no other
    return hidden_matrices(model) | {id(output_of(language))}


@torch.no_grad()
def scale_initialisation(model: PreTrainedModel, ratio: float) -> None:
    """Of a model that was just made, whose weights have the spread of one of the base width."""
    hidden, output = hidden_matrices(model), output_of(model)
    for parameter in model.parameters():
        if parameter is output or id(parameter) in hidden:
            own = parameter.ds_tensor if is_spread(parameter) else parameter.data
            own.mul_(ratio if parameter is output else math.sqrt(ratio))
