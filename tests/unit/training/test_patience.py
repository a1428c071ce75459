"""A pod has the time that its checkpoint takes on a slow disk, and more of it the larger the model is."""

from __future__ import annotations

from typing import Any

import pytest

from llm_operator.api.validation import load_training
from llm_operator.training.patience import grace_seconds, patience_seconds
from tests.specs import LARGE, TRAINING, changed

ADAPTER = {"name": "legal", "sft": {"dataset": {"uri": "pvc://corpus/legal.jsonl"}}, "lora": {"rank": 8},
           "globalBatchSize": 16}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "index", "seconds"),
    [
        ({}, 0, (120, 1800)),  # a small one
        ({}, -1, (120, 1800)),  # data preparation
        (LARGE, 0, (968, 1800)),  # 6.5 G parameters, 14 bytes of each: 453 s
        ({**LARGE, "stages__1": ADAPTER}, 1, (120, 1800)),  # it saves its adapter alone
    ],
    ids=["small", "data", "large", "adapter"],
)
def test_it_follows_from_the_size(change: dict[str, Any], index: int, seconds: tuple[int, int]) -> None:
    spec = load_training(changed(TRAINING, **change))
    assert (grace_seconds(spec, index), patience_seconds(spec, index)) == seconds
