"""A reward model's score at every token."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import ModelOutput


class ValueModel(torch.nn.Module):
    """What a critic learns, and what the reward of a whole answer is read from, at its last token.

    transformers' sequence classifiers, which reward models are, give one score for a whole row.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.config = model.config

    def forward(self, **inputs: Any) -> ModelOutput:
        """`logits` (batch, length)."""
        hidden = self.model.base_model(**inputs).last_hidden_state
        return ModelOutput(logits=self.model.score(hidden).squeeze(-1))
