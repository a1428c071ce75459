"""What TRL asks of a mixture's configuration."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig

from llm_trainer.models.experts import name_experts, shows_routers
from tests.trainer.tiny import tiny


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("granitemoe", "num_local_experts"),
        ("phimoe", "num_local_experts"),
        ("jetmoe", "num_local_experts"),
        ("llama4_text", "num_local_experts"),
        ("deepseek_v4", "n_routed_experts"),
        ("qwen3_moe", "num_experts"),
    ],
)
def test_every_mixture_tells_its_experts_as_trl_asks(family: str, key: str) -> None:
    config = AutoConfig.for_model(family)
    saved = config.to_dict()
    name_experts(config)
    assert config.num_experts == getattr(config, key)
    assert config.to_dict() == saved


@pytest.mark.parametrize("family", ["granitemoe", "mixtral", "qwen3_moe", "gpt_oss", "olmoe"])
def test_who_shows_nothing_of_its_routers_is_known(family: str) -> None:
    model = tiny(family)
    asked = model(torch.tensor([[3, 4, 5]]), output_router_logits=True)
    assert bool(asked.get("router_logits")) == shows_routers(model.config)


def test_who_has_none_is_given_none() -> None:
    config = AutoConfig.for_model("llama")
    name_experts(config)
    assert not hasattr(config, "num_experts")
