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
    total = active = 0
    for name, parameter in model.named_parameters():
        total += parameter.numel()
        routed = ".experts." in name and chosen and dimensions(parameter) >= 2
        active += parameter.numel() * chosen // parameter.shape[0] if routed else parameter.numel()
    head = model.get_output_embeddings()
    looked_up = sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding) and (head is None or module.weight is not head.weight)
    )
    return Size(total, active, looked_up, attention_width(model))


def attention_width(model: PreTrainedModel) -> int:
    """By the layers that have scores to compute."""
    text = model.config.get_text_config(decoder=True)
    heads = int(getattr(text, "num_attention_heads", 0) or 0)
    if not heads:
        return 0
    if hasattr(text, "qk_nope_head_dim"):
        size = int(text.qk_nope_head_dim + text.qk_rope_head_dim)
    else:
        size = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    layers = (module for name, module in model.named_modules() if name.endswith(("attn", "attention")))
    attending = sum(1 for module in layers if any(True for _ in module.children()))
    return attending * heads * size
