"""μP: what steps change in a model does not grow with its width (a coordinate check, Yang et al. 2022, D.1)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llm_trainer.config import WIDTH_FAMILIES, Pretrain, ResolvedOptimizer
from llm_trainer.models.engine_config import parameter_groups, peak_of
from llm_trainer.models.width import narrowed, scale_initialisation, width_ratio
from llm_trainer.runtime.errors import ConfigurationError
from tests.trainer.tiny import tiny

NARROW, WIDE, STEPS = 64, 256, 4
OPTIMIZER = ResolvedOptimizer(learning_rate=0.002)


def settings(base: int | None) -> Pretrain:
    tune: Any = {"baseWidth": base} if base else {}
    return Pretrain.model_validate({"sequenceLength": 16, "steps": 1, "tune": tune})


def wide(family: str, width: int, **keys: Any) -> Any:
    """Heads of the same size, as many as the width has."""
    if family == "gpt2":
        return tiny(family, n_embd=width, n_head=width // 8, n_layer=2, tie_word_embeddings=False, **keys)
    heads = {"num_attention_heads": width // 8, "num_key_value_heads": width // 16, "head_dim": 8}
    return tiny(family, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
                **{**heads, "tie_word_embeddings": False, **keys})  # fmt: skip


def moved(family: str, width: int, *, scaled: bool) -> float:
    """By how much some steps change the logits, root mean square."""
    model, base = wide(family, width), settings(NARROW if scaled else None)
    groups = list(parameter_groups(model, OPTIMIZER))
    if scaled:
        ratio = width_ratio(model, base)
        scale_initialisation(model, ratio)
        groups = list(parameter_groups(model, OPTIMIZER, narrowed(model), ratio))
    optimizer = torch.optim.AdamW([{**group, "lr": peak_of(OPTIMIZER, group)} for group in groups])
    tokens = torch.randint(0, 300, (4, 16), generator=torch.Generator().manual_seed(1))
    before = model(tokens).logits.detach()
    for _ in range(STEPS):
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float((model(tokens).logits.detach() - before).square().mean().sqrt())


@pytest.mark.parametrize("family", WIDTH_FAMILIES)
def test_a_step_changes_as_much_at_any_width(family: str) -> None:
    narrow = moved(family, NARROW, scaled=True)
    assert moved(family, NARROW, scaled=False) == pytest.approx(narrow, rel=1e-4), "at its own width nothing is scaled"
    assert moved(family, WIDE, scaled=True) < 1.1 * narrow
    assert moved(family, WIDE, scaled=False) > 2 * narrow


def test_every_weight_is_in_one_group_and_decays_as_before() -> None:
    model = wide("llama", 64)
    groups = list(parameter_groups(model, OPTIMIZER, narrowed(model), 0.5))
    assert sorted(id(one) for group in groups for one in group["params"]) == sorted(map(id, model.parameters()))
    rates = {group["name"]: (peak_of(OPTIMIZER, group), peak_of(OPTIMIZER, group) * group["weight_decay"])
             for group in groups}  # fmt: skip
    assert rates == {"narrowed": (0.001, 0.0002), "matrices": (0.002, 0.0002), "vectors": (0.002, 0.0)}
    (embeddings,) = next(group["params"] for group in groups if group["name"] == "matrices")
    assert embeddings is model.get_input_embeddings().weight


def test_what_does_not_scale_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="baseWidth: how rates scale is not known of the family mamba"):
        width_ratio(tiny("mamba"), settings(16))
    with pytest.raises(ConfigurationError, match="set tie_word_embeddings: false"):
        width_ratio(tiny("gpt2"), settings(16))
    assert width_ratio(tiny("mamba"), settings(None)) == 1
