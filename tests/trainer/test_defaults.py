"""Our defaults are TRL's, field by field, and a stage's config survives its way to the pod."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from trl import DPOConfig, GRPOConfig, KTOConfig, RewardConfig, SFTConfig

from llm_trainer.config import KINDS, StageConfig, settings_of

DATASET = {"dataset": {"uri": "pvc://corpus/rows.jsonl"}}
ONLINE = {**DATASET, "rewards": [{"function": "checks:f"}]}
SETTINGS: dict[str, dict[str, Any]] = {
    "pretrain": {"sequenceLength": 64, "steps": 3}, "sft": DATASET, "rewardModel": DATASET, "dpo": DATASET,
    "kto": DATASET, "ppo": {**ONLINE, "ptx": {"sequenceLength": 64}}, "grpo": ONLINE,
}  # fmt: skip
OPTIMIZER = {
    "optimizer.learning_rate": "learning_rate", "optimizer.beta1": "adam_beta1", "optimizer.beta2": "adam_beta2",
    "optimizer.epsilon": "adam_epsilon", "optimizer.weight_decay": "weight_decay",
    "optimizer.gradient_clipping": "max_grad_norm",
}  # fmt: skip
SAME = {name: name for name in ("max_length", "beta")}
TABLE: dict[str, tuple[type, dict[str, str]]] = {
    "sft": (SFTConfig, {"max_length": "max_length"}),
    "rewardModel": (
        RewardConfig,
        {"max_length": "max_length", "center_rewards_coefficient": "center_rewards_coefficient"},
    ),
    "dpo": (
        DPOConfig,
        {**SAME, **{name: name for name in ("loss_type", "loss_weights", "label_smoothing")}},
    ),
    "kto": (KTOConfig, {**SAME, **{name: name for name in ("desirable_weight", "undesirable_weight")}}),
    "grpo": (
        GRPOConfig,
        {
            name: name
            for name in (
                "beta", "epsilon", "epsilon_high", "num_generations", "max_completion_length", "temperature",
                "loss_type", "scale_rewards", "mask_truncated_completions",
            )
        },
    ),
}  # fmt: skip


def stage(kind: str) -> StageConfig:
    return StageConfig.model_validate(
        {
            "training": "test", "namespace": "default", "uid": "0", "stage": "s", "attempt": 1, "nodes": 2,
            "processesPerNode": 1, "device": "cpu", "runUri": "pvc://models/run", "model": {"uri": "pvc://models/x"},
            kind: {**SETTINGS[kind], "lora": {"rank": 4}},
        }
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS.values())
def test_a_config_round_trips(kind: str) -> None:
    config = stage(kind)
    again = StageConfig.model_validate_json(config.model_dump_json(by_alias=True))
    assert again == config
    assert settings_of(again) is not None


@pytest.mark.parametrize("kind", TABLE)
def test_defaults_are_those_of_trl(kind: str) -> None:
    theirs, names = TABLE[kind]
    defaults = {field.name: default_of(field) for field in dataclasses.fields(theirs)}
    settings = settings_of(stage(kind))
    for ours, name in {**OPTIMIZER, **names}.items():
        value: Any = settings
        for part in ours.split("."):
            value = getattr(value, part)
        assert value == defaults[name], f"{kind}.{ours} is {value!r}, {theirs.__name__}.{name} {defaults[name]!r}"


def default_of(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
