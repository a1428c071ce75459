"""Families that people bring: a GPU computes what a CPU does, also in bfloat16 by the attention chosen there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from llm_trainer.models.attention import attention
from llm_trainer.models.language_loss import add_loss
from tests.trainer.tiny import ALL, VOCABULARY, tiny

LENGTH = 48


def loss_and_gradient(model: PreTrainedModel, device: str) -> tuple[float, torch.Tensor]:
    """Nats of two rows, and all gradients as one vector in float32 on the CPU."""
    add_loss(model)
    tokens = torch.randint(3, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(1)).to(device)
    nats = model(input_ids=tokens[:, :-1], targets=tokens[:, 1:], use_cache=False).nats
    nats.backward()
    gradients = [p.grad.flatten().float().cpu() for p in model.parameters() if p.grad is not None]
    return nats.item(), torch.cat(gradients)


def relative(made: torch.Tensor, expected: torch.Tensor) -> float:
    return float((made - expected).norm() / expected.norm())


@pytest.mark.parametrize("family", ALL)
def test_a_family(family: str, record_property: Any) -> None:
    loss, gradient = loss_and_gradient(tiny(family), "cpu")
    exact, of_exact = loss_and_gradient(tiny(family).cuda(), "cuda")
    assert exact == pytest.approx(loss, rel=1e-5)
    assert relative(of_exact, gradient) < 1e-3
    model = tiny(family)
    kernel = attention(model.config, half=True)
    model.set_attn_implementation(kernel.implementation)
    rough, of_rough = loss_and_gradient(model.to("cuda", torch.bfloat16), "cuda")
    record_property("seen", f"{kernel}; loss {abs(rough / loss - 1):.1e}, gradient {relative(of_rough, gradient):.1e}")
    assert rough == pytest.approx(loss, rel=0.01)
    assert relative(of_rough, gradient) < 0.1
