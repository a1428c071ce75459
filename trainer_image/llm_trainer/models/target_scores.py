"""TRL's fused head on a CPU: what it says of each target, in fewer passes over a vocabulary.

Where there is no Triton, TRL projects prompts and padding too, and every token again on the way back, and multiplies in
float32 there whatever the precision. Here targets alone are projected, and what a token gives to the gradients, but for
a factor, is kept of as many as fit: what is left to do backwards are its products.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.nn.functional import linear
from trl.kernels import ChunkedLogProbFunction
from trl.trainer import utils

from llm_trainer.models.language_loss import TILE, blocks, precision_of_products, slope_of

NAMES = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")  # TRL's, in its order
_has_kernel = utils._use_triton


def score_targets_on_cpu() -> None:
    """From now on, in this process, in every model that TRL's `add_fused_lm_head` has changed."""
    utils._use_triton = lambda device: device.type == "cpu" or _has_kernel(device)  # then it picks the targets
    utils._ChunkedLogProbFunction = TargetScores


class TargetScores:
    """In the place of TRL's function, with its arguments and results."""

    @staticmethod
    def apply(
        hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor,
        temperature: float, chunk_size: int, soft_cap: float | None, scale: float, outputs: tuple[str, ...],
    ) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
        """NAMES, each (targets), None if not among the outputs; of (targets, width), (vocabulary, width), (targets)."""
        made: tuple[torch.Tensor | None, ...]
        if hidden.device.type == "cpu" and soft_cap is None:
            given = (hidden, weight, bias, targets, scale / temperature, precision_of_products(weight), outputs)
            with torch.autocast("cpu", enabled=False):  # sums over a vocabulary are float32 in any case
                made = _Scores.apply(*given)  # type: ignore[no-untyped-call]
        else:
            made = ChunkedLogProbFunction.apply(
                hidden, weight, bias, targets, temperature, chunk_size, soft_cap, scale, outputs
            )
        return made


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor,
        factor: float, precision: torch.dtype, outputs: tuple[str, ...],
    ) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
        ctx.set_materialize_grads(False)  # there is none of the entropy, which is only told
        head = Head.of(weight, bias, precision)
        kept = TILE // len(weight) if any(ctx.needs_input_grad) else 0
        said: list[dict[str, torch.Tensor]] = []
        slopes: list[torch.Tensor | None] = []
        for rows in tiles(len(hidden), len(weight)):
            slope = head.logits(hidden[rows])
            said += become_slope(slope, targets[rows], factor, outputs)
            slopes.append(slope if rows.stop <= kept else None)
        made = [torch.cat([scores[name] for scores in said]) if name in said[0] else None for name in NAMES]
        ctx.save_for_backward(hidden, weight, bias, targets, *slopes)
        ctx.factor, ctx.precision = factor, precision
        ctx.mark_non_differentiable(*(part for part in made[2:] if part is not None))
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, share: torch.Tensor | None, of_entropy: torch.Tensor | None, *_: Any) -> tuple[Any, ...]:
        if of_entropy is not None:
            raise NotImplementedError("on a CPU the entropy of TRL's head is told, and not learned from")
        if share is None:
            return (None,) * 7
        hidden, weight, bias, targets, *slopes = ctx.saved_tensors
        with utils.maybe_gather_lm_head_ctx(weight, bias):
            head = Head.of(weight, bias, ctx.precision)
            made = [
                torch.zeros_like(part, dtype=torch.float32) if needed else None
                for part, needed in zip((hidden, weight, bias), ctx.needs_input_grad, strict=False)
            ]
            to_hidden, to_weight, to_bias = made
            for rows, slope in zip(tiles(len(hidden), len(weight)), slopes, strict=True):
                if slope is None:
                    slope = head.logits(hidden[rows])
                    become_slope(slope, targets[rows], ctx.factor)
                shares = (-ctx.factor * share[rows]).to(ctx.precision)[:, None]
                if to_hidden is not None:
                    torch.mul(slope @ head.weight, shares, out=to_hidden[rows])
                if to_weight is not None:
                    to_weight += slope.T @ (hidden[rows].to(ctx.precision) * shares)
                if to_bias is not None:
                    to_bias += (slope.T @ shares).squeeze(1)
        given = zip(made, (hidden, weight, bias), strict=True)
        return *(None if part is None else part.to(of.dtype) for part, of in given), None, None, None, None


def tiles(rows: int, vocabulary: int) -> Iterator[slice]:
    """Without a row too one: the weights of ZeRO-3 learn from all ranks."""
    size = max(1, TILE // 4 // vocabulary)
    for begin in range(0, max(1, rows), size):
        yield slice(begin, min(begin + size, rows))


class Head(NamedTuple):
    """A linear output in the precision of its products."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    precision: torch.dtype

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None, precision: torch.dtype) -> Head:
        return cls(weight.to(precision), None if bias is None else bias.to(precision), precision)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return linear(hidden.to(self.precision), self.weight, self.bias)


def become_slope(
    logits: torch.Tensor, targets: torch.Tensor, factor: float, outputs: tuple[str, ...] = ()
) -> list[dict[str, torch.Tensor]]:
    """Put `slope_of` the targets (rows) in the place of (rows, vocabulary). By name, what is said of some rows each."""
    said = []
    for block in blocks(logits):
        wide, places = logits[block].float(), targets[block][:, None]
        wide = wide if factor == 1 else wide * factor
        log_probs = torch.log_softmax(wide, dim=-1)
        probabilities = log_probs.exp()
        said.append(scores_of_block(wide, log_probs, probabilities, places, outputs))
        logits[block] = slope_of(probabilities, places)
    return said


def scores_of_block(
    logits: torch.Tensor, log_probs: torch.Tensor, probabilities: torch.Tensor, places: torch.Tensor,
    outputs: tuple[str, ...],
) -> dict[str, torch.Tensor]:  # fmt: skip
    """By name, each (rows), of three of (rows, vocabulary) and the targets (rows, 1)."""
    made = {"log_probs": log_probs.gather(1, places).squeeze(1)}
    if "entropy" in outputs:
        made["entropy"] = -row_products(log_probs, probabilities)
    if "log_sum_sq_probs" in outputs:
        made["log_sum_sq_probs"] = row_products(probabilities, probabilities).log()
    if "mean_logits" in outputs:
        made["mean_logits"] = logits.mean(dim=-1)
    if "is_top1" in outputs:
        made["is_top1"] = log_probs.argmax(dim=-1) == places.squeeze(1)
    return made


def row_products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(rows), of two of (rows, columns), without a third of these."""
    return torch.bmm(left[:, None], right[..., None]).flatten()
