"""Rows that hold several documents, for models whose state would run on from one into the next.

Attention tells documents apart by their positions; a state-space layer does not (transformers' mamba2 is off by 3 in
its logits, jamba by 2e-3). For such a model every document gets a row of its own, and its outputs go back to where the
document was.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

STATE_SPACE = ("mamba", "mamba2", "jamba")


@dataclass(frozen=True)
class Documents:
    """`tokens`: (documents, longest), padded at the end; `there`: where they are no padding."""

    tokens: torch.Tensor
    there: torch.Tensor
    shape: torch.Size

    def pack(self, outputs: torch.Tensor) -> torch.Tensor:
        """(documents, longest, …) → (rows, length, …)."""
        return outputs[self.there].view(*self.shape, *outputs.shape[2:])

    def spread(self, values: torch.Tensor, padding: int) -> torch.Tensor:
        """(rows, length) → (documents, longest)."""
        spread = values.new_full(self.there.shape, padding)
        spread[self.there] = values.flatten()
        return spread


def unpack(tokens: torch.Tensor, positions: torch.Tensor) -> Documents:
    """Both (rows, length); a document begins where positions are 0, and where a row begins.

    What pads a document comes after it, where nothing causal sees it.
    """
    begins = positions == 0
    begins[:, 0] = True
    starts = begins.flatten().nonzero().squeeze(-1)
    lengths = torch.diff(starts, append=starts.new_tensor([tokens.numel()]))
    documents = pad_sequence(list(torch.split(tokens.flatten(), lengths.tolist())), batch_first=True)
    there = torch.arange(documents.shape[1], device=tokens.device) < lengths[:, None]
    return Documents(documents, there, tokens.shape)
