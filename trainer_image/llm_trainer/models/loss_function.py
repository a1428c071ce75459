"""A loss that is a function of the user's, called as transformers calls `compute_loss_func`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import CausalLMOutputWithPast

from llm_trainer.models.language_loss import IGNORED
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.functions import call, check_signature, load_function

WRITTEN = "(outputs, labels, num_items_in_batch=None)"
ROWS, LENGTH, VOCABULARY = 2, 8, 32  # of the small batch that it is tried with


@dataclass(frozen=True)
class LossFunction:
    """Gives a micro-batch's share of a step's loss, a number with a gradient. ``field`` is for messages."""

    name: str
    field: str
    function: Any

    def __call__(self, outputs: Any, labels: torch.Tensor, num_items: Any) -> torch.Tensor:
        """`labels`: (batch, length), not shifted, some IGNORED; `num_items`: those that count, of the whole step.

        Raises ConfigurationError for what is no loss.
        """
        loss = call(self.function, self.name, self.field, outputs, labels, num_items_in_batch=num_items)
        if not isinstance(loss, torch.Tensor) or loss.dim() or not loss.is_floating_point():
            kind = f"a tensor of {list(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
            raise self.error(f"gave {kind}; it must return a tensor with one number")
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise self.error("gave a number without a gradient; compute it from outputs.logits by torch alone")
        return loss

    def error(self, said: str) -> ConfigurationError:
        return ConfigurationError(f"{self.field}: {self.name} {said}")


def loss_function(name: str, field: str) -> LossFunction:
    """Checked by a small batch on CPU. Raises ConfigurationError, with what to do."""
    function = load_function(name, field)
    check_signature(function, name, field, WRITTEN, None, None, num_items_in_batch=1)
    loss = LossFunction(name, field, function)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        check(loss)
    return loss


def check(loss: LossFunction) -> None:
    """Raises ConfigurationError."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, LENGTH, VOCABULARY, generator=generator, requires_grad=True)
    labels = torch.randint(VOCABULARY, (ROWS, LENGTH), generator=generator)
    labels[0, : LENGTH // 2] = IGNORED
    items = int((labels[:, 1:] != IGNORED).sum())
    made = loss(CausalLMOutputWithPast(logits=logits), labels.clone(), torch.tensor(items))
    if not torch.isfinite(made):
        raise loss.error(f"gave {float(made.detach())} for finite logits; labels of {IGNORED} are not to count")
    (gradient,) = torch.autograd.grad(made, logits, allow_unused=True)
    if gradient is None or not torch.isfinite(gradient).all() or not gradient.any():
        what = "no gradient" if gradient is None or not gradient.any() else "a gradient that is not finite"
        raise loss.error(f"gives {what} to outputs.logits, so that nothing would be learned; mend it")
    half = loss(CausalLMOutputWithPast(logits=logits), labels.clone(), torch.tensor(2 * items))
    if torch.equal(made, half):
        raise loss.error(
            "pays no heed to num_items_in_batch, so that a step's loss would grow with its micro-batches and "
            "processes; give the sum over the labels that count divided by num_items_in_batch"
        )
