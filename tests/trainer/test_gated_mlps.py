"""The product of gated MLPs by another's kernel. Here a plain one stands in for Liger's, which needs a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from llm_trainer.config import Lora
from llm_trainer.models import gated_mlps
from llm_trainer.models.gated_mlps import computes_right, fuse_gated_mlps, is_gated_mlp
from llm_trainer.models.low_rank import lora_config

CPU = torch.device("cpu")


class Plain(torch.autograd.Function):
    """As Liger's: keeps gate and up, and writes their gradients over them."""

    calls = 0

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        Plain.calls += 1
        ctx.save_for_backward(gate, up)
        return gate * torch.sigmoid(gate) * up

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        share = torch.sigmoid(gate)
        to_up = slope * gate * share
        gate.data.copy_(slope * up * share * (1 + gate * (1 - share)))
        up.data.copy_(to_up)
        return gate, up


def model_of(family: str, **config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    whole = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 64,
    }
    made: PreTrainedModel = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, **{**whole, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, **config})
    )
    return made


def learned(model: PreTrainedModel) -> tuple[float, dict[str, torch.Tensor]]:
    """A loss and its gradients."""
    tokens = torch.arange(48, device=model.device).view(2, 24) % 60
    loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    return loss.item(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "calls", 0)
    monkeypatch.setattr(gated_mlps, "liger_product", lambda: Plain.apply)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("changed", ["whole", "adapter", "made again"])
def test_the_loss_and_its_gradients_stay(changed: str) -> None:
    def model() -> Any:
        made: Any = model_of("llama")
        if changed == "adapter":
            from peft import get_peft_model

            made = get_peft_model(made, lora_config(made, Lora(rank=4), "CAUSAL_LM"))
        if changed == "made again":
            made.gradient_checkpointing_enable({"use_reentrant": False})
        return made.train()

    torch.manual_seed(1)
    plain = model()
    torch.manual_seed(1)
    fused = model()
    assert fuse_gated_mlps(fused, CPU, torch.float32) == 2
    Plain.calls = 0
    (loss, gradients), (other, others) = learned(plain), learned(fused)
    assert Plain.calls == (4 if changed == "made again" else 2)
    assert other == pytest.approx(loss, rel=1e-6)
    assert set(others) == set(gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("family", "config", "gated"),
    [
        ("llama", {}, True), ("qwen3", {"head_dim": 8}, True), ("mistral", {}, True),
        ("llama", {"hidden_act": "gelu"}, False), ("gemma", {"head_dim": 8}, False), ("gpt_neox", {}, False),
        ("phi3", {}, False),
    ],
)  # fmt: skip
def test_which_modules_take_it_is_asked_of_them(family: str, config: dict[str, Any], gated: bool) -> None:
    """By what they compute, not by their name; and asking leaves no trace."""
    model = model_of(family, **config)
    before, _ = learned(model)
    found = [module for module in model.modules() if is_gated_mlp(module)]
    assert len(found) == (2 if gated else 0)
    assert not [name for name, module in model.named_modules() if "forward" in vars(module)]
    assert learned(model)[0] == before


def test_a_kernel_that_is_wrong_or_fails_is_not_taken(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(gate) * up

    def not_a_number(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return gate * up * float("nan")

    def fails(*_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no compiler")

    for product in (wrong, not_a_number, fails):
        assert not computes_right(product, {48}, CPU, torch.float32)
    assert "no compiler" in capsys.readouterr().out
    for dtype in (torch.float32, torch.bfloat16):
        assert computes_right(Plain.apply, {48, 64}, CPU, dtype)


def test_without_the_library_nothing_changes() -> None:
    if gated_mlps.liger_product() is not None:
        pytest.skip("it is installed here")
    assert fuse_gated_mlps(model_of("llama"), CPU, torch.float32) == 0
