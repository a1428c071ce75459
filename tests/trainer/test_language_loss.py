"""The loss that is made without logits, and the fused norms, against plain torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Linear
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from llm_trainer.models import language_loss
from llm_trainer.models.language_loss import IGNORED, add_loss, nats_of
from llm_trainer.models.norms import fuse_norms
from tests.trainer.test_families import FAMILIES

VOCABULARY = 50


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("counted", ["all", "some", "none"])
def test_gradients_are_those_of_the_cross_entropy(bias: bool, counted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_loss, "TILE", 7 * VOCABULARY)  # five tiles, the last one shorter
    torch.manual_seed(0)
    hidden, head = torch.randn(3, 11, 16, requires_grad=True), Linear(16, VOCABULARY, bias=bias)
    targets = torch.randint(VOCABULARY, (3, 11))
    if counted != "all":
        targets[0, : 4 if counted == "some" else None] = IGNORED
        targets[1:] = targets[1:] if counted == "some" else IGNORED
    made = with_gradients(nats_of(hidden, head, targets), hidden, head)
    logits = head(hidden).flatten(0, 1)
    expected = with_gradients(
        cross_entropy(logits, targets.flatten(), reduction="sum", ignore_index=IGNORED), hidden, head
    )
    for one, other in zip(made, expected, strict=True):
        assert torch.allclose(one, other.to(one.dtype), rtol=1e-4, atol=1e-5)


def with_gradients(nats: torch.Tensor, hidden: torch.Tensor, head: Linear) -> list[torch.Tensor]:
    inputs = [hidden, *head.parameters()]
    return [nats.detach(), *torch.autograd.grad(0.3 * nats, inputs)]


def family(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, vocab_size=VOCABULARY, **FAMILIES[name])
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name: str) -> None:
    """The loss and the gradients, fused, are those of its logits."""
    tokens = torch.arange(2, 42).view(2, 20)
    plain, fused = family(name), family(name)
    fuse_norms(fused)
    add_loss(fused)
    assert torch.allclose(fused(input_ids=tokens).logits, plain(input_ids=tokens).logits, atol=1e-5)
    nats = fused(input_ids=tokens[:, :-1], targets=tokens[:, 1:], use_cache=False).nats
    logits = plain(input_ids=tokens[:, :-1], use_cache=False).logits
    expected = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
    assert nats.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.autograd.backward([nats, expected])
    for (key, one), (_, other) in zip(fused.named_parameters(), plain.named_parameters(), strict=True):
        if other.grad is None:
            assert one.grad is None, key
        else:
            assert one.grad is not None, key
            assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-4), key


def test_an_adapter_of_the_output_learns() -> None:
    from peft import LoraConfig, get_peft_model

    model: Any = family("qwen3")
    add_loss(model)
    tokens = torch.arange(2, 42).view(2, 20)
    expected = float(model(input_ids=tokens[:, :-1], targets=tokens[:, 1:]).nats)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head", "q_proj"]))
    nats = adapted(input_ids=tokens[:, :-1], targets=tokens[:, 1:]).nats
    assert float(nats) == pytest.approx(expected, rel=1e-5)
    nats.backward()
    grads = [key for key, part in adapted.named_parameters() if part.grad is not None]
    assert any("lm_head" in key for key in grads), grads
