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

from llm_trainer.models.language_loss import TILE, precision_of_products

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
        head = Head.of(weight, bias, factor, precision)
        kept = TILE // len(weight) if any(ctx.needs_input_grad) else 0
        told, slopes = [], []
        for rows in tiles(len(hidden), len(weight)):
            log_probs = head.log_probs(hidden[rows])
            probabilities = log_probs.exp()
            scores = scores_of_tile(log_probs, probabilities, targets[rows], outputs)
            if "mean_logits" in outputs:
                scores["mean_logits"] = head.mean_logits(hidden[rows])
            told.append(scores)
            slopes.append(head.slope(probabilities, targets[rows]) if rows.stop <= kept else None)
        made = [torch.cat([scores[name] for scores in told]) if name in told[0] else None for name in NAMES]
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
            head = Head.of(weight, bias, ctx.factor, ctx.precision)
            made = [
                torch.zeros_like(part, dtype=torch.float32) if needed else None
                for part, needed in zip((hidden, weight, bias), ctx.needs_input_grad, strict=False)
            ]
            to_hidden, to_weight, to_bias = made
            for rows, kept in zip(tiles(len(hidden), len(weight)), slopes, strict=True):
                slope = head.slope(head.log_probs(hidden[rows]).exp_(), targets[rows]) if kept is None else kept
                shares = (-ctx.factor * share[rows]).to(head.precision)[:, None]
                if to_hidden is not None:
                    torch.mul(slope @ head.weight, shares, out=to_hidden[rows])
                if to_weight is not None:
                    to_weight += slope.T @ (hidden[rows].to(head.precision) * shares)
                if to_bias is not None:
                    to_bias += (slope.T @ shares).squeeze(1)
        given = zip(made, (hidden, weight, bias), strict=True)
        return *(None if part is None else part.to(of.dtype) for part, of in given), None, None, None, None


def tiles(rows: int, vocabulary: int) -> Iterator[slice]:
    """Without a row too one: the weights of ZeRO-3 learn from all ranks."""
    size = max(1, TILE // 4 // vocabulary)  # some four of a tile's tensors live at a time
    for begin in range(0, max(1, rows), size):
        yield slice(begin, min(begin + size, rows))


class Head(NamedTuple):
    """A linear output in the precision of the products; ``factor``: of its logits."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    factor: float
    precision: torch.dtype

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None, factor: float, precision: torch.dtype) -> Head:
        return cls(weight.to(precision), None if bias is None else bias.to(precision), factor, precision)

    def log_probs(self, hidden: torch.Tensor) -> torch.Tensor:
        """(rows, vocabulary), float32."""
        logits = linear(hidden.to(self.precision), self.weight, self.bias)
        return torch.log_softmax(logits if self.factor == 1 else logits.float() * self.factor, -1, dtype=torch.float32)

    def mean_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(rows), float32: the mean of products is the product with the mean."""
        mean = hidden.float() @ self.weight.float().mean(0)
        return self.factor * (mean if self.bias is None else mean + self.bias.float().mean())

    def slope(self, probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(rows, vocabulary), in the probabilities' place: how the nats of a target grow with the logits."""
        places = targets[:, None]
        return probabilities.scatter_add_(1, places, probabilities.new_full(places.shape, -1.0)).to(self.precision)


def scores_of_tile(
    log_probs: torch.Tensor, probabilities: torch.Tensor, targets: torch.Tensor, outputs: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    """By name, each (rows), of two of (rows, vocabulary)."""
    made = {"log_probs": log_probs.gather(1, targets[:, None]).squeeze(1)}
    if "entropy" in outputs:
        made["entropy"] = -row_products(log_probs, probabilities)
    if "log_sum_sq_probs" in outputs:
        made["log_sum_sq_probs"] = row_products(probabilities, probabilities).log()
    if "is_top1" in outputs:
        made["is_top1"] = log_probs.argmax(dim=-1) == targets
    return made


def row_products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(rows), of two of (rows, columns), without a third of these."""
    return torch.bmm(left[:, None], right[..., None]).flatten()
