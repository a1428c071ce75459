"""Rows that hold several documents, for models whose state would run on from one into the next.

Attention tells documents apart by their positions; a state-space layer does not (transformers' mamba2 is off by 3 in
its logits, jamba by 2e-3). For such a model every document gets a row of its own, and its outputs go back to where the
document was.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import Module
from torch.nn.utils.rnn import pad_sequence

SHORTEST = 32  # documents up to this length are padded together
TOLERANCE = 1e-5  # of the largest logit; a document by itself gives the very same ones, whatever comes before it
# What tests have seen to keep documents apart; of others it is asked before the first step.
KEEP_APART = ("gpt2", "llama", "qwen3", "mixtral", "qwen3_moe", "deepseek_v3")


@dataclass(frozen=True)
class Documents:
    """Some of a batch's documents, of about one length.

    `tokens`: (documents, longest), padded at the end; `there`: where they are no padding; `places`: where those are
    among the batch's tokens, row after row.
    """

    tokens: torch.Tensor
    there: torch.Tensor
    places: torch.Tensor

    def put(self, outputs: torch.Tensor, into: torch.Tensor) -> torch.Tensor:
        """(documents, longest, …) to their places in (rows, length, …)."""
        flat = into.flatten(0, 1).index_copy(0, self.places, outputs[self.there].to(into.dtype))
        return flat.view_as(into)

    def spread(self, values: torch.Tensor, padding: int) -> torch.Tensor:
        """(rows, length) → (documents, longest)."""
        spread = values.new_full(self.there.shape, padding)
        spread[self.there] = values.flatten()[self.places]
        return spread


def unpack(tokens: torch.Tensor, positions: torch.Tensor, *, every_length: bool = False) -> Iterator[Documents]:
    """Both (rows, length); a document begins where positions are 0, and where a row begins.

    What pads a document comes after it, where nothing causal sees it. Documents of 33 to 64 tokens come together, of 65
    to 128, and so on: padding takes no more than they do themselves, where one long document would stretch all others.
    `every_length`: also those of which there is no document, as one token that isn't there, so that all ranks make
    equally many passes.
    """
    begins = positions == 0
    begins[:, 0] = True
    starts = begins.flatten().nonzero().squeeze(-1)
    lengths = torch.diff(starts, append=starts.new_tensor([tokens.numel()]))
    documents = torch.split(tokens.flatten(), lengths.tolist())
    places = torch.split(torch.arange(tokens.numel(), device=tokens.device), lengths.tolist())
    least, most = 0, SHORTEST
    while least < tokens.shape[1]:
        chosen = ((lengths > least) & (lengths <= most)).nonzero().flatten().tolist()
        if chosen:
            rows = pad_sequence([documents[index] for index in chosen], batch_first=True)
            there = torch.arange(rows.shape[1], device=tokens.device) < lengths[chosen][:, None]
            yield Documents(rows, there, torch.cat([places[index] for index in chosen]))
        elif every_length:
            nothing = torch.zeros(1, 1, dtype=torch.bool, device=tokens.device)
            yield Documents(tokens[:1, :1], nothing, places[0][:0])
        least, most = most, 2 * most


def runs_on(model: Module) -> bool:
    """Whether its state is known to run on into the next document, or it can't be told where one begins."""
    within = innermost(model)
    if getattr(within, "_is_stateful", False):
        return True
    return "position_ids" not in inspect.signature(within.base_model.forward).parameters  # type: ignore[union-attr]


def innermost(model: Module) -> Module:
    """The transformers model within an adapter or a critic."""
    if hasattr(model, "get_base_model"):
        return innermost(model.get_base_model())  # type: ignore[operator]
    inner = getattr(model, "model", None)
    return inner if inner is not None and not hasattr(model, "base_model") else model


@torch.no_grad()
def leaks(logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], tokens: int, device: torch.device) -> bool:
    """Whether a document sees the one before it in its row. `logits`: a model's, of tokens and positions.

    `tokens`: of its vocabulary. Two rows, as some keep documents apart only where there is one.
    """
    row = torch.arange(1, 17, device=device).remainder(tokens).expand(2, -1)
    positions = torch.cat([torch.arange(7, device=device), torch.arange(9, device=device)]).expand(2, -1)
    other = torch.cat([row[:, :7].roll(1, dims=1), row[:, 7:]], dim=1)
    first, second = (logits(given, positions)[:, 7:].float() for given in (row, other))
    return float((first - second).abs().max()) > TOLERANCE * float(first.abs().max())
