"""Load balancing without a loss: DeepSeek-V3 (arXiv 2412.19437), section 2.1.2, and the families that follow it.

Each expert has a bias that counts in choosing and not in weighing. After a step it goes down by a fixed speed where an
expert got more tokens than the mean of its layer, and up where it got fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import Module

from llm_trainer.runtime.process_group import ProcessGroup

BIAS = "e_score_correction_bias"
SPEED = 0.001  # the paper's gamma, section 4.2


def routers(model: Module) -> list[Module]:
    """Those with such a bias, layer by layer; also where the experts are spread over processes."""
    return [module for module in model.modules() if BIAS in dict(module.named_buffers(recurse=False))]


def biases(model: Module) -> list[torch.Tensor]:
    """As they are before an engine makes them bfloat16, which has no room for a thousandth."""
    return [router.get_buffer(BIAS).detach().float().clone() for router in routers(model)]


class Balance:
    """Counts what the routers choose, in training alone, and moves their biases once a step, the same on all ranks."""

    def __init__(self, model: Module, kept: Sequence[torch.Tensor], *, learns: bool) -> None:
        """``kept``: the biases in float32, which they become again. ``learns``: False where the model stays as it is,
        under an adapter.
        """
        self.routers = routers(model)
        self.learns = learns
        self._chosen: list[torch.Tensor] = []
        for layer, (router, bias) in enumerate(zip(self.routers, kept, strict=True)):
            router.register_buffer(BIAS, bias.to(router.get_buffer(BIAS).device))
            self._chosen.append(torch.zeros_like(router.get_buffer(BIAS)))
            router.register_forward_hook(lambda module, _, output, layer=layer: self._see(layer, module, output))

    def _see(self, layer: int, router: Module, output: Any) -> None:
        if not router.training or not torch.is_grad_enabled():
            return
        chosen = next((part for part in output if torch.is_tensor(part) and part.dtype == torch.int64), None)
        if chosen is not None:
            self._chosen[layer] += torch.bincount(chosen.flatten(), minlength=len(self._chosen[layer]))

    def step(self, group: ProcessGroup, *, applied: bool) -> dict[str, float]:
        """After an optimizer step; a collective. Empty without such routers.

        ``applied``: False for a step that was left out, after which nothing moves. The figures are those of `Routers`.
        """
        if not self.routers:
            return {}
        own = torch.stack([counts.cpu() for counts in self._chosen])
        summed = torch.tensor(group.sum(*own.flatten().tolist()), dtype=torch.float64).view_as(own)
        for layer, (router, counts) in enumerate(zip(self.routers, summed, strict=True)):
            self._chosen[layer].zero_()
            if applied and self.learns:
                bias = router.get_buffer(BIAS)
                bias += SPEED * torch.sign(counts.mean() - counts).to(bias)
        shares = summed / summed.sum(dim=1, keepdim=True).clamp(min=1)
        return {
            "router/maxLoad": float(shares.max()) * summed.shape[1],
            "router/deadExperts": float((summed == 0).sum()),
        }
