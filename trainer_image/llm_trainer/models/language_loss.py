"""The loss of a language model without its logits, which for a large vocabulary need more memory than all the rest.

The gradient of a sum of cross-entropies is known as soon as the logits are, but for one factor. So a tile of tokens is
projected, and what it gives to the gradients is made of its logits at once; nothing is projected a second time. Where
each token's log-probability is wanted, as in PPO, its factor is known only later, and a tile is projected once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch.nn import Linear
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

IGNORED = -100  # a target that doesn't count
TILE = 2**27  # logits at a time: 1 GB with their probabilities
BLOCK = 2**18  # of a tile: 1 MB in float32


class _Nats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor,
        learns: bool, tells: bool,  # noqa: FBT001 -- by position alone
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        nats = torch.zeros((), dtype=torch.float64, device=hidden.device)
        told = torch.zeros(2, dtype=torch.float64, device=hidden.device)  # as `Told` has them
        learned = [learns and needed for needed in ctx.needs_input_grad[1:3]]
        to_weight: torch.Tensor | None = None
        to_bias: torch.Tensor | None = None
        to_hidden = torch.empty_like(hidden) if learns and ctx.needs_input_grad[0] else None
        rows = max(1, TILE // len(weight))
        ctx.dtype, precision = weight.dtype, precision_of_products(weight)
        weight, bias = weight.to(precision), None if bias is None else bias.to(precision)
        for begin in range(0, max(1, len(hidden)), rows):  # without a row too: the weights of ZeRO-3 learn from all
            part, wanted = hidden[begin : begin + rows].to(precision), targets[begin : begin + rows]
            counted, places = (wanted != IGNORED), wanted.clamp(min=0)[:, None]
            slope = linear(part, weight, bias)
            for block in blocks(slope):
                log_probs = torch.log_softmax(slope[block], dim=-1, dtype=torch.float32)
                chosen = log_probs.gather(1, places[block]).squeeze(1)
                nats -= (chosen * counted[block]).sum(dtype=torch.float64)
                if tells:
                    probabilities = log_probs.exp()
                    told += told_of(log_probs, probabilities, chosen)
                if learns:  # in the logits' place
                    slope[block] = slope_of(probabilities if tells else log_probs.exp_(), places[block])
            if not learns:
                continue
            counted = counted.to(precision)[:, None]  # where it is narrow: the tile itself is a vocabulary wide
            if to_hidden is not None:
                torch.mul(slope @ weight, counted, out=to_hidden[begin : begin + rows])
            if learned[0]:
                to_weight = summed(to_weight, slope.T @ (part * counted))
            if learned[1] and bias is not None:
                to_bias = summed(to_bias, (slope.T @ counted).squeeze(1))
        ctx.save_for_backward(to_hidden, to_weight, to_bias)
        ctx.mark_non_differentiable(told)
        return nats, told

    @staticmethod
    def backward(ctx: Any, share: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        to_hidden, *gradients = ctx.saved_tensors
        made = [None if part is None else (part * share.float()).to(ctx.dtype) for part in gradients]
        return None if to_hidden is None else (to_hidden * share).to(to_hidden.dtype), *made, None, None, None


def blocks(logits: torch.Tensor) -> Iterator[slice]:
    """Rows whose passes a CPU makes in its cache; a GPU, which has none of that size, makes all in one."""
    rows = max(1, BLOCK // logits.shape[1]) if logits.device.type == "cpu" else max(1, len(logits))
    for begin in range(0, max(1, len(logits)), rows):
        yield slice(begin, begin + rows)


def slope_of(probabilities: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(rows, vocabulary), in the place of these: how a target's nats grow with the logits. ``places``: (rows, 1)."""
    return probabilities.scatter_add_(1, places, probabilities.new_full(places.shape, -1.0))


def precision_of_products(weight: torch.Tensor) -> torch.dtype:
    """Of a weight, with what it meets; known here, as autocast would convert each time what is used twice."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def summed(before: torch.Tensor | None, part: torch.Tensor) -> torch.Tensor:
    """In float32, as tiles add up in it. Without zeros to begin with: they are a vocabulary wide."""
    return part.float() if before is None else before.add_(part)


def nats_of(hidden: torch.Tensor, head: Linear, targets: torch.Tensor) -> torch.Tensor:
    """Sum of the cross-entropies, a float64 scalar, of (…, width) for (…); IGNORED ones don't count."""
    return tiled(hidden.flatten(0, -2), head, targets.flatten(), tells=False)[0]


def tiled(hidden: torch.Tensor, head: Linear, targets: torch.Tensor, *, tells: bool) -> tuple[torch.Tensor, Told]:
    """Of (rows, width) and (rows); where `Told` is wanted, all must count."""
    nats, told = _Nats.apply(  # type: ignore[no-untyped-call]
        hidden.to(head.weight.dtype), head.weight, head.bias, targets, torch.is_grad_enabled(), tells
    )
    return nats, Told(*told)


class Told(NamedTuple):
    """Sums over the targets, float64 scalars: of the entropies, in nats, and how many were the likeliest token."""

    entropy: torch.Tensor
    right: torch.Tensor


def told_of(log_probs: torch.Tensor, probabilities: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Of two of (rows, vocabulary) and the targets' log-probabilities (rows), which all count; a pass for each sum."""
    entropy = -torch.dot(log_probs.flatten(), probabilities.flatten())
    right = (chosen >= log_probs.amax(dim=-1)).sum()
    return torch.stack([entropy.double(), right.double()])


def told_nats_of(hidden: torch.Tensor, head: Linear, targets: torch.Tensor) -> tuple[torch.Tensor, Told]:
    """The same with what else is told of the targets. Only those that count are projected: most of a chat is prompt."""
    aims = targets.flatten()
    places = (aims != IGNORED).nonzero().squeeze(-1)
    return tiled(hidden.flatten(0, -2).index_select(0, places), head, aims[places], tells=True)


def nats_of_logits(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same sum, of (…, vocabulary) for (…)."""
    flat = logits.flatten(0, -2).float()
    return cross_entropy(flat, targets.flatten(), ignore_index=IGNORED, reduction="sum")


class Scores(NamedTuple):
    """Of each target, and of the distribution that it is drawn from, in nats; 0 where the target is IGNORED."""

    log_probs: torch.Tensor
    entropy: torch.Tensor


def scores_of(hidden: torch.Tensor, head: Linear, targets: torch.Tensor, temperature: float) -> Scores:
    """(…), float32, of (…, width) for (…). Only what counts is projected: a tile at a time, and again backwards."""

    def tile(hidden: torch.Tensor, targets: torch.Tensor) -> Scores:
        return scores_of_logits(linear(hidden, head.weight, head.bias), targets, temperature)

    flat = hidden.flatten(0, -2).to(head.weight.dtype)
    places = (targets.flatten() != IGNORED).nonzero().squeeze(-1)
    picked, wanted = flat[places], targets.flatten()[places]
    rows = max(1, TILE // 4 // len(head.weight))  # autograd keeps some four of a tile's tensors at a time
    parts = [
        checkpoint(tile, picked[begin : begin + rows], wanted[begin : begin + rows], use_reentrant=False)
        for begin in range(0, max(1, len(places)), rows)  # without a target too: the weights of ZeRO-3 come from all
    ]
    empty = torch.zeros(targets.numel(), device=flat.device)
    made = (empty.index_copy(0, places, torch.cat(part)).view_as(targets) for part in zip(*parts, strict=True))
    return Scores(*made)


def scores_of_logits(logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> Scores:
    """The same, of (…, vocabulary) for (…)."""
    counted = targets != IGNORED
    log_probs = torch.log_softmax((logits if logits.dtype.itemsize > 2 else logits.float()) / temperature, dim=-1)
    chosen = log_probs.gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1)
    return Scores(chosen * counted, -(log_probs.exp() * log_probs).sum(dim=-1) * counted)


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
    if type(model.get_output_embeddings()) is not Linear:  # an adapter of it, or its own kind of weights
        return False
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


def of_logits(logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> dict[str, Any]:
    if temperature:
        return {"scores": scores_of_logits(logits, targets, temperature)}
    return {"nats": nats_of_logits(logits, targets)}


def add_loss(model: PreTrainedModel) -> bool:
    """`model(…, targets=…)` gives `nats` instead of logits, and `router_logits` if asked for.

    With a `temperature` it gives `scores`, of each target; with `tells` it gives `told` beside `nats`. All are made by
    the output's own module, for which ZeRO-3 gathers the weights; where an adapter has its place, or the family makes
    more of the product (a scale, a soft cap), from the logits. Whether it is the first; `tells` is for that alone.
    """
    forward, head = model.forward, model.get_output_embeddings()
    plain = gives_the_product(model)

    def model_forward(
        self: PreTrainedModel, *given: Any, targets: torch.Tensor | None = None, temperature: float = 0.0,
        tells: bool = False, **named: Any,
    ) -> Any:  # fmt: skip
        if targets is None:
            with asked_by_configuration(self, shown=named.get("output_router_logits", False)):
                return forward(*given, **named)
        if not plain:
            with asked_by_configuration(self, shown=named.get("output_router_logits", False)):
                outputs = forward(*given, **named)
            made = of_logits(outputs.logits, targets, temperature)
            return ModelOutput(**made, router_logits=outputs.get("router_logits"))
        outputs = self.base_model(*given, **named)
        hidden = outputs.last_hidden_state
        if self.get_output_embeddings() is head:
            made = head(hidden, targets, temperature, tells=tells)
        else:
            made = of_logits(self.get_output_embeddings()(hidden), targets, temperature)
        return ModelOutput(**made, router_logits=outputs.get("router_logits"))

    def head_forward(
        self: Linear, hidden: torch.Tensor, targets: torch.Tensor | None = None, temperature: float = 0.0, *,
        tells: bool = False,
    ) -> Any:  # fmt: skip
        if targets is None:
            return linear(hidden, self.weight, self.bias)
        if temperature:
            return {"scores": scores_of(hidden, self, targets, temperature)}
        if tells:
            nats, told = told_nats_of(hidden, self, targets)
            return {"nats": nats, "told": told}
        return {"nats": nats_of(hidden, self, targets)}

    model.forward = MethodType(model_forward, model)
    if plain:  # an adapter's own forward stays
        head.forward = MethodType(head_forward, head)
    return plain
