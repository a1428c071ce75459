"""How large a model is and what a token costs, told by the model itself, whatever its family; without its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from llm_trainer.models.experts import experts_per_token
from llm_trainer.models.parameters import dimensions


@dataclass(frozen=True)
class Size:
    """Parameters; ``active`` are those that one token uses, ``embedding`` are looked up and not multiplied."""

    total: int
    active: int
    embedding: int
    attention_width: int  # heads × head size, summed over the layers that attend: what one position costs
    width: int = 0  # of the hidden state
    head: int = 0  # of an output matrix of its own; 0 where it is the embedding
    routed: int = 0  # of all experts among which a router chooses

    def training_flops_per_token(self, length: int) -> float:
        """6 for each multiplied parameter, 12 for each product of attention; PaLM (Chowdhery et al. 2022), app. B."""
        return 6 * (self.active - self.embedding) + 12 * self.attention_width * length

    def __str__(self) -> str:
        active = f", of which a token uses {self.active:,}" if self.active != self.total else ""
        return f"{self.total:,} parameters{active}"


def size_of(model: PreTrainedModel) -> Size:
    """Also of a model on the meta device. Sliding windows count as whole rows."""
    text = model.config.get_text_config(decoder=True)
    chosen = experts_per_token(text) or int(getattr(text, "num_experts_per_tok", 0) or 0)
    total = active = experts = 0
    for name, parameter in model.named_parameters():
        shape = shape_of(parameter)
        total += shape.numel()
        routed = ".experts." in name and chosen and dimensions(parameter) >= 2
        experts += shape.numel() if routed else 0
        active += shape.numel() * chosen // shape[0] if routed else shape.numel()
    embeddings = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    own = head_of(model)
    tied = any(own is weight for weight in embeddings)
    looked_up = sum(shape_of(weight).numel() for weight in embeddings if weight is not own)
    head = shape_of(own).numel() if own is not None and not tied else 0
    return Size(total, active, looked_up, attention_width(model), width_of(model), head, experts)


def head_of(model: PreTrainedModel) -> torch.Tensor | None:
    """The matrix that makes the output: of words, or a reward model's one number."""
    module = model.get_output_embeddings() or getattr(model, "score", None)
    return getattr(module, "weight", None)


def width_of(model: PreTrainedModel) -> int:
    told = getattr(model.config.get_text_config(decoder=True), "hidden_size", None)
    return int(told or shape_of(model.get_input_embeddings().weight)[-1])


def shape_of(parameter: torch.Tensor) -> torch.Size:
    """Of all of it, where ZeRO 3 has spread it over the processes as well."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def attention_width(model: PreTrainedModel) -> int:
    """By the layers that have scores to compute."""
    text = model.config.get_text_config(decoder=True)
    heads = int(getattr(text, "num_attention_heads", 0) or 0)
    if not heads:
        return 0
    if hasattr(text, "qk_nope_head_dim"):
        size = int(text.qk_nope_head_dim + text.qk_rope_head_dim)
    else:
        size = int(getattr(text, "head_dim", None) or width_of(model) // heads)
    layers = (module for name, module in model.named_modules() if name.endswith(("attn", "attention")))
    attending = sum(1 for module in layers if any(True for _ in module.children()))
    return attending * heads * size
