"""What data preparation is told of the mixtures of later stages."""

from __future__ import annotations

from typing import Any

from llm_operator.api.training import LLMTrainingSpec
from llm_operator.training.stages import prepare_data
from tests.specs import TRAINING, changed


def pretrain(name: str, **fields: Any) -> dict[str, Any]:
    model = fields.pop("model", None)
    stage = {"name": name, "pretrain": {"sequenceLength": 128, "steps": 10, **fields}}
    return {**stage, **({"model": {"stage": model}} if model else {})}


def test_which_stage_goes_on_with_the_rows_of_which() -> None:
    chat = {**TRAINING["stages"][1], "model": {"stage": "base"}}
    stages = [
        pretrain("base", mixture={}),
        chat,
        pretrain("more", mixture={"temperature": 0.3}, model="chat"),
        pretrain("longer", mixture={}, model="more", sequenceLength=256),
        pretrain("whole", model="more"),
        pretrain("last", mixture={}, model="whole"),
        pretrain("anew", mixture={}),
    ]
    made = prepare_data(LLMTrainingSpec.model_validate(changed(TRAINING, stages=stages))).mixtures
    assert [(check.field, check.stage, check.after) for check in made] == [
        ("spec.stages[0].pretrain.mixture", "base", ""),
        ("spec.stages[2].pretrain.mixture", "more", "base"),
        ("spec.stages[3].pretrain.mixture", "longer", ""),
        ("spec.stages[5].pretrain.mixture", "last", ""),
        ("spec.stages[6].pretrain.mixture", "anew", ""),
    ]
    assert [(check.rows, check.length) for check in made] == [(80, 128), (80, 128), (80, 256), (80, 128), (80, 128)]
