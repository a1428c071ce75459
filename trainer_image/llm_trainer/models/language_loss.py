"""The loss of a language model without its logits, which for a large vocabulary need more memory than all the rest.

The gradient of a sum of cross-entropies is known as soon as the logits are, but for one factor. So a tile of tokens is
projected, and what it gives to the gradients is made of its logits at once; nothing is projected a second time.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch.nn import Linear
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

IGNORED = -100  # a target that doesn't count
TILE = 2**27  # logits at a time: 1 GB with their probabilities


class _Nats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor,
        learns: bool,  # noqa: FBT001 -- by position alone
    ) -> torch.Tensor:  # fmt: skip
        nats = torch.zeros((), dtype=torch.float64, device=hidden.device)
        # in float32, as the tiles add up in them
        gradients = [
            torch.zeros_like(part, dtype=torch.float32) if part is not None and learns and needed else None
            for part, needed in zip((weight, bias), ctx.needs_input_grad[1:3], strict=True)
        ]
        to_hidden = torch.empty_like(hidden) if learns and ctx.needs_input_grad[0] else None
        rows = max(1, TILE // len(weight))
        for begin in range(0, len(hidden), rows):
            part, wanted = hidden[begin : begin + rows], targets[begin : begin + rows]
            counted, places = (wanted != IGNORED), wanted.clamp(min=0)[:, None]
            log_probs = torch.log_softmax(linear(part, weight, bias), dim=-1, dtype=torch.float32)
            nats -= (log_probs.gather(1, places).squeeze(1) * counted).sum(dtype=torch.float64)
            if not learns:
                continue
            slope = log_probs.exp_()
            slope.scatter_add_(1, places, slope.new_full(places.shape, -1.0))
            slope = slope.to(hidden.dtype)
            counted = counted.to(hidden.dtype)[:, None]  # where it is narrow: the tile itself is a vocabulary wide
            if to_hidden is not None:
                torch.mul(slope @ weight, counted, out=to_hidden[begin : begin + rows])
            to_weight, to_bias = gradients
            if to_weight is not None:
                to_weight += slope.T @ (part * counted)
            if to_bias is not None:
                to_bias += (slope.T @ counted).squeeze(1)
        ctx.save_for_backward(to_hidden, *gradients)
        ctx.dtype = weight.dtype
        return nats

    @staticmethod
    def backward(ctx: Any, share: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        to_hidden, *gradients = ctx.saved_tensors
        made = [None if part is None else (part * share.float()).to(ctx.dtype) for part in gradients]
        return None if to_hidden is None else (to_hidden * share).to(to_hidden.dtype), *made, None, None


def nats_of(hidden: torch.Tensor, head: Linear, targets: torch.Tensor) -> torch.Tensor:
    """Sum of the cross-entropies, a float64 scalar, of (…, width) for (…); IGNORED ones don't count."""
    hidden = hidden.flatten(0, -2).to(head.weight.dtype)
    made: torch.Tensor = _Nats.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.bias, targets.flatten(), torch.is_grad_enabled()
    )
    return made


def add_loss(model: PreTrainedModel) -> None:
    """`model(…, targets=…)` gives `nats` instead of logits, and `router_logits` if asked for.

    The sum is made by the output's own module, for which ZeRO-3 gathers the weights; where an adapter has its place,
    from the logits.
    """
    forward, head = model.forward, model.get_output_embeddings()

    def model_forward(self: PreTrainedModel, *given: Any, targets: torch.Tensor | None = None, **named: Any) -> Any:
        if targets is None:
            return forward(*given, **named)
        outputs = self.base_model(*given, **named)
        hidden = outputs.last_hidden_state
        if self.get_output_embeddings() is head:
            nats = head(hidden, targets)
        else:
            logits = self.get_output_embeddings()(hidden).float()
            nats = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        return ModelOutput(nats=nats, router_logits=outputs.get("router_logits"))

    def head_forward(self: Linear, hidden: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
        return linear(hidden, self.weight, self.bias) if targets is None else nats_of(hidden, self, targets)

    model.forward, head.forward = MethodType(model_forward, model), MethodType(head_forward, head)
