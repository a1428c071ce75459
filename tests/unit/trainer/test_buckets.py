"""How DeepSpeed is asked to reduce gradients: in how large a bucket, and whether by way of a copy."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llm_trainer.config import Pretrain
from llm_trainer.models.engine_config import BUCKET, deepspeed_config


def asked(device: str, *, learning: int = BUCKET, **settings: Any) -> dict[str, Any]:
    pretrain = Pretrain.model_validate({"sequenceLength": 8, "steps": 1, **settings})
    config = deepspeed_config(pretrain, torch.device(device), 4, bfloat16=False, learning=learning)
    return dict(config["zero_optimization"])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_bucket_is_no_larger_than_what_learns(device: str) -> None:
    """Of an adapter's 1,000 elements a GPU held two buckets of 2 GB."""
    assert asked(device, learning=1000)["reduce_bucket_size"] == 1000
    assert asked(device, learning=10**10)["reduce_bucket_size"] == BUCKET


@pytest.mark.parametrize(
    ("device", "settings", "scatters"),
    [
        ("cpu", {"zeroStage": 1}, False),
        ("cpu", {"zeroStage": 2}, False),
        ("cpu", {"zeroStage": 3}, True),
        ("cpu", {"zeroStage": 2, "expertParallel": 2}, True),
        ("cuda", {"zeroStage": 2}, True),
        ("cuda", {"zeroStage": 2, "optimizer": {"type": "muon"}}, False),
    ],
)
def test_where_gradients_are_scattered(device: str, settings: dict[str, Any], *, scatters: bool) -> None:
    assert asked(device, **settings)["reduce_scatter"] == scatters
