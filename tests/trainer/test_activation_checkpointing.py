"""Activations that are made again give the losses and gradients of those that are kept, in less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel

from llm_trainer.config import StageConfig
from llm_trainer.models.activation_checkpointing import checkpoint_activations
from llm_trainer.models.experts import experts_per_token
from llm_trainer.models.language_loss import add_loss
from llm_trainer.runtime.errors import ConfigurationError
from tests.trainer.conftest import SFT, RunPods, Stage, stage_config
from tests.trainer.pods import losses
from tests.trainer.tiny import ALL, tiny

APART = ("mamba", "mamba2", "jamba", "falcon_h1", "qwen3_next", "lfm2")  # documents don't share a row


def gradients(model: PreTrainedModel) -> tuple[list[torch.Tensor], int]:
    """Of two rows with two documents each, and the bytes that were kept for them."""
    tokens = torch.arange(2, 82).view(2, 40) % 300
    positions = torch.cat([torch.arange(15), torch.arange(24)]).repeat(2, 1)
    wanted: dict[str, Any] = {} if model.config.model_type in APART else {"position_ids": positions}
    if experts_per_token(model.config) is not None:
        wanted["output_router_logits"] = True
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(input_ids=tokens[:, :-1], targets=tokens[:, 1:], use_cache=False, **wanted)
        routers = [layer.square().mean() for layer in out.get("router_logits") or ()]
        loss = out.nats + sum(routers)
    found = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    size = sum(size for place, size in kept.items() if place not in weights)
    return [loss.detach(), *(part for part in found if part is not None)], size


@pytest.mark.parametrize("family", ALL)
def test_every_family(family: str) -> None:
    keys = {"dropout": 0.0} if family == "opt" else {}  # not by a module
    kept, made = tiny(family, **keys), tiny(family, **keys)
    for model in (kept, made):
        add_loss(model)
        disable_dropout(model)
        model.train()
    if not made.supports_gradient_checkpointing:
        pytest.fail(f"{family} has none: say so in the documentation")
    checkpoint_activations(made, asked=True)
    (expected, before), (found, after) = gradients(kept), gradients(made)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert after < 0.6 * before, f"{after} bytes are kept, and were {before}"


def disable_dropout(model: PreTrainedModel) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def test_a_family_without_it() -> None:
    model = tiny("llama")
    model.supports_gradient_checkpointing = False
    checkpoint_activations(model, asked=False)
    with pytest.raises(ConfigurationError, match=r"activationCheckpointing: .* llama models; leave it out"):
        checkpoint_activations(model, asked=True)


@pytest.mark.parametrize("zero", [pytest.param(1, marks=pytest.mark.release), 3])
def test_pretraining(zero: int, pretrain: Stage, pods: RunPods) -> None:
    short = {"steps": 4, "zeroStage": zero}
    kept = pretrain(f"kept-{zero}", **short)
    made = pretrain(f"made-again-{zero}", activationCheckpointing=True, **short)
    pods(kept).run()
    pods(made).run()
    assert losses(made) == pytest.approx(losses(kept), rel=1e-5)


@pytest.mark.parametrize("lora", [None, {"rank": 4}], ids=["whole", "an adapter"])
def test_sft_packed(lora: Any, prepared: Any, base: str, pods: RunPods) -> None:
    def sft(stage: str, **settings: Any) -> StageConfig:
        given = {**SFT, "epochs": 0.5, "maxLength": 96, "zeroStage": 3, "lora": lora, **settings}
        return stage_config(prepared, stage, model={"uri": base}, sft=given)

    name = "adapter" if lora else "whole"
    kept, made = sft(f"kept-{name}"), sft(f"made-again-{name}", activationCheckpointing=True)
    pods(kept).run()
    pods(made).run()
    assert losses(made) == pytest.approx(losses(kept), rel=1e-5)
