"""By which tokenizer data preparation reads the rows of a stage."""

from __future__ import annotations

from typing import Any

import pytest

from llm_operator.api.training import LLMTrainingSpec
from llm_operator.training.stages import prepare_data

SFT = {"dataset": {"uri": "pvc://corpus/chat.jsonl"}}
OTHER = "pvc://models/other"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"model": {"uri": OTHER}}, [(True, OTHER), (True, OTHER)]),
        ({"model": {"uri": OTHER}, "tokenizer": {"uri": "pvc://models/tokens"}}, [(False, OTHER), (False, OTHER)]),
        ({"model": {"architecture": {"family": "llama", "config": {}}}, "tokenizer": {"uri": "pvc://models/tokens"},
          "first": {"model": {"uri": OTHER}}}, [(False, OTHER), (False, OTHER)]),
    ],
)  # fmt: skip
def test_a_stage_is_read_by_the_tokenizer_of_the_model_it_starts_from(
    spec: dict[str, Any], expected: list[tuple[bool, str | None]]
) -> None:
    spec = dict(spec)
    stages = [{"name": "one", "sft": SFT, **spec.pop("first", {})}, {"name": "two", "sft": SFT}]
    claim = {"persistentVolumeClaim": {"claimName": "models"}}
    made = LLMTrainingSpec.model_validate({**spec, "storage": claim, "stages": stages})
    checks = prepare_data(made).datasets
    assert [(check.training_tokenizer, check.model_uri) for check in checks] == expected
