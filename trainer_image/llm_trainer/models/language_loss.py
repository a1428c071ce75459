"""The loss of a language model without its logits, which for a large vocabulary need more memory than all the rest.

The gradient of a sum of cross-entropies is known as soon as the logits are, but for one factor. So a tile of tokens is
projected, and what it gives to the gradients is made of its logits at once; nothing is projected a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch.nn import Linear
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
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


def nats_of_logits(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same sum, of (…, vocabulary) for (…)."""
    flat = logits.flatten(0, -2).float()
    return cross_entropy(flat, targets.flatten(), ignore_index=IGNORED, reduction="sum")


class Outputs(BaseModelOutput):  # type: ignore[misc]
    """Those of any model's base: all but the hidden state is None."""

    def __getattr__(self, name: str) -> None:
        return None


@torch.no_grad()
def gives_the_product(model: PreTrainedModel) -> bool:
    """Whether the model's logits are its last hidden state times its output's matrix, and nothing else.

    Its own forward is asked, with stand-ins for all that computes: so it costs nothing and needs no device. False is
    never wrong, and costs the memory of the logits.
    """
    base, head = model.base_model, model.get_output_embeddings()
    device = head.weight.device
    hidden, logits = (torch.linspace(1, 100, 8, device=device)[None, None] for _ in range(2))
    seen: list[torch.Tensor] = []

    def stand_in(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        seen.append(hidden)
        return logits

    saved = [(module, vars(module).get("forward")) for module in (base, head)]
    base.forward = lambda *_, **__: Outputs(last_hidden_state=hidden)
    head.forward = MethodType(stand_in, head)
    try:
        found = model.forward(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False).logits
    except Exception:  # noqa: BLE001 -- a forward that goes another way (opt) is taken as it is
        return False
    finally:
        for module, own in saved:
            del module.forward
            if own is not None:
                module.forward = own
    return len(seen) == 1 and torch.equal(seen[0].float(), hidden) and torch.equal(found.float(), logits)


@contextmanager
def asked_by_configuration(model: PreTrainedModel, *, shown: bool) -> Iterator[None]:
    """For families (granitemoe) whose forward doesn't hand on that the routers are to be shown."""
    before = getattr(model.config, "output_router_logits", None)
    if shown:
        model.config.output_router_logits = True
    try:
        yield
    finally:
        if shown:
            model.config.output_router_logits = before


def add_loss(model: PreTrainedModel) -> None:
    """`model(…, targets=…)` gives `nats` instead of logits, and `router_logits` if asked for.

    The sum is made by the output's own module, for which ZeRO-3 gathers the weights; where an adapter has its place,
    or the family makes more of the product (a scale, a soft cap), from the logits.
    """
    forward, head = model.forward, model.get_output_embeddings()
    plain = gives_the_product(model)

    def model_forward(self: PreTrainedModel, *given: Any, targets: torch.Tensor | None = None, **named: Any) -> Any:
        if targets is None:
            with asked_by_configuration(self, shown=named.get("output_router_logits", False)):
                return forward(*given, **named)
        if not plain:
            with asked_by_configuration(self, shown=named.get("output_router_logits", False)):
                outputs = forward(*given, **named)
            return ModelOutput(nats=nats_of_logits(outputs.logits, targets), router_logits=outputs.get("router_logits"))
        outputs = self.base_model(*given, **named)
        hidden = outputs.last_hidden_state
        if self.get_output_embeddings() is head:
            nats = head(hidden, targets)
        else:
            nats = nats_of_logits(self.get_output_embeddings()(hidden), targets)
        return ModelOutput(nats=nats, router_logits=outputs.get("router_logits"))

    def head_forward(self: Linear, hidden: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
        return linear(hidden, self.weight, self.bias) if targets is None else nats_of(hidden, self, targets)

    model.forward, head.forward = MethodType(model_forward, model), MethodType(head_forward, head)
