"""The loss that is made without logits, and the fused norms, against plain torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import Linear
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from llm_trainer.models import language_loss
from llm_trainer.models.language_loss import (
    IGNORED,
    Scores,
    add_loss,
    nats_of,
    scores_of,
    scores_of_logits,
    told_nats_of,
)
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


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("counted", ["some", "none"])
def test_scores_of_tiles_are_those_of_the_logits(bias: bool, counted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_loss, "TILE", 7 * VOCABULARY)
    torch.manual_seed(0)
    hidden, head = torch.randn(3, 11, 16, requires_grad=True), Linear(16, VOCABULARY, bias=bias)
    targets = torch.randint(VOCABULARY, (3, 11))
    targets[:, : 2 if counted == "some" else None] = IGNORED
    weights = torch.randn(2, 3, 11)

    def both(scores: Scores) -> list[torch.Tensor]:
        total = sum((part * weight).sum() for part, weight in zip(scores, weights, strict=True))
        return [*(part.detach() for part in scores), *torch.autograd.grad(total, [hidden, *head.parameters()])]

    made = both(scores_of(hidden, head, targets, 0.7))
    for one, other in zip(made, both(scores_of_logits(head(hidden), targets, 0.7)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    expected = torch.log_softmax(head(hidden) / 0.7, dim=-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(made[0], torch.where(targets == IGNORED, 0.0, expected.detach()))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("counted", ["all", "some", "none"])
def test_what_is_told_of_the_targets(bias: bool, counted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_loss, "TILE", 7 * VOCABULARY)
    torch.manual_seed(0)
    hidden, head = torch.randn(3, 11, 16, requires_grad=True), Linear(16, VOCABULARY, bias=bias)
    logits = head(hidden).flatten(0, 1)
    targets = logits.argmax(dim=-1).view(3, 11)  # a third of which is the likeliest token
    targets[:, ::3] = 0
    targets[:, 1::3] = 1
    targets[:, : {"all": 0, "some": 4, "none": 11}[counted]] = IGNORED
    nats, told = told_nats_of(hidden, head, targets)
    made = with_gradients(nats, hidden, head)
    kept = targets.flatten() != IGNORED
    expected = with_gradients(
        cross_entropy(logits, targets.flatten(), reduction="sum", ignore_index=IGNORED), hidden, head
    )
    for one, other in zip(made, expected, strict=True):
        torch.testing.assert_close(one, other.to(one.dtype), rtol=1e-4, atol=1e-5)
    shares = logits.detach()[kept].double().softmax(dim=-1)
    torch.testing.assert_close(told.entropy, -(shares * shares.log()).sum(), rtol=1e-5, atol=1e-6)
    assert told.right == (logits.argmax(dim=-1) == targets.flatten())[kept].sum()
    assert not told.entropy.requires_grad


def test_frozen_weights_get_no_gradient() -> None:
    """As under an adapter: theirs would be a third of the work."""
    hidden, head = torch.randn(5, 16, requires_grad=True), Linear(16, VOCABULARY, bias=False).requires_grad_(False)
    with Products() as made:
        torch.autograd.backward(told_nats_of(hidden, head, torch.tensor([IGNORED, 1, 2, IGNORED, 3]))[0])
    assert made.shapes == [(3, VOCABULARY), (3, 16)]


def test_an_adapter_of_the_output_is_not_passed_over() -> None:
    config = AutoConfig.for_model("llama", vocab_size=VOCABULARY, hidden_size=16, intermediate_size=16,
                                  num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)  # fmt: skip
    adapted = get_peft_model(
        AutoModelForCausalLM.from_config(config), LoraConfig(target_modules=["lm_head"], init_lora_weights=False)
    )
    language = adapted.get_base_model()
    tokens = torch.randint(VOCABULARY, (2, 9))
    expected = cross_entropy(
        adapted(input_ids=tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"
    )
    assert not add_loss(language)
    targets = torch.cat([tokens[:, 1:], torch.full((2, 1), IGNORED)], dim=1)
    torch.testing.assert_close(adapted(input_ids=tokens, targets=targets).nats, expected)


def test_scores_hold_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest tensor that is made, there and back, is a tile; the logits would be a hundred."""
    monkeypatch.setattr(language_loss, "TILE", 32 * 1000)
    hidden, head = torch.randn(3200, 8, requires_grad=True), Linear(8, 1000, bias=False)
    targets = torch.randint(1000, (3200,))
    with Largest() as seen:  # type: ignore[no-untyped-call]
        torch.autograd.backward(scores_of(hidden, head, targets, 1.0).log_probs.sum())
        torch.autograd.backward(nats_of(hidden, head, targets))
    assert seen.elements <= 32 * 1000, seen.elements
    with Largest() as seen:  # type: ignore[no-untyped-call]
        torch.autograd.backward(scores_of_logits(head(hidden), targets, 1.0).log_probs.sum())
    assert seen.elements >= 3200 * 1000


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for part in made if isinstance(made, tuple | list) else [made]:
            if isinstance(part, torch.Tensor):
                self.elements = max(self.elements, part.numel())
        return made


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The shape of each product of matrices that is made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if function in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.linear.default):
            self.shapes.append(tuple(made.shape))
        return made


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
    scores = fused(input_ids=tokens[:, :-1], targets=tokens[:, 1:], temperature=1.0, use_cache=False).scores
    assert -float(scores.log_probs.sum().detach()) == pytest.approx(expected.item(), rel=1e-5)
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
