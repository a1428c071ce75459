"""What TRL asks of a mixture's configuration."""

from __future__ import annotations

import pytest
from transformers import AutoConfig

from llm_trainer.models.experts import name_experts


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


def test_who_has_none_is_given_none() -> None:
    config = AutoConfig.for_model("llama")
    name_experts(config)
    assert not hasattr(config, "num_experts")
