"""TRL's stages and PPO on models that people bring: two steps each, and the result is a model of the same family."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tools.family_table import STAGES_RUN
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as SCORERS

from llm_trainer.config import StageConfig, local_path
from llm_trainer.data.manifest import TOKENIZER
from llm_trainer.data.tokenizer import load_tokenizer
from tests.trainer.conftest import RunPods, stage_config
from tests.trainer.online import PYTHONPATH
from tests.trainer.pods import losses
from tests.trainer.tiny import tiny

SHARED: dict[str, Any] = {
    "epochs": 1, "globalBatchSize": 4, "microBatchSize": 2, "precision": "float32", "evaluation": {"everySteps": 1},
    "optimizer": {"learningRate": 0.001}, "dataset": {"uri": "pvc://corpus/few.jsonl", "validationFraction": 0.2},
}  # fmt: skip
PROMPTS = {"uri": "pvc://corpus/few_prompts.jsonl", "validationFraction": 0.2}
ANSWERS = {"dataset": PROMPTS, "maxPromptLength": 24, "maxCompletionLength": 8, "rewards": [
    {"function": "tests.trainer.reward_functions:early"}
]}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "sft": {"maxLength": 48},
    "rewardModel": {"maxLength": 48},
    "dpo": {"maxLength": 48},
    "kto": {"maxLength": 48},
    "grpo": {**ANSWERS, "numGenerations": 2},
    "ppo": {**ANSWERS, "updateEpochs": 1},
}
WITH_A_HEAD = ("rewardModel", "ppo")  # that gives one number


@pytest.fixture
def rows(prepared: Path) -> None:
    """Twelve, of every kind's columns, of which each reads its own; and of prompts alone."""
    both = [{"chosen": f"It is {n} good", "rejected": f"It is {n} bad"} for n in range(12)]
    few = [
        {"prompt": f"What is {n}? ", "completion": f"It is {n}", "label": bool(n % 2), **pair}
        for n, pair in enumerate(both)
    ]
    prompts = [{"prompt": row["prompt"]} for row in few]
    for name, made in (("few", few), ("few_prompts", prompts)):
        (prepared / "corpus" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))


def stage(volumes: Path, family: str, kind: str, base: str) -> StageConfig:
    name = f"{kind.lower()}-{family.replace('_', '-')}"
    settings: dict[str, Any] = {kind: {**SHARED, **KINDS[kind]}}
    return stage_config(volumes, name, nodes=1, model={"uri": base}, **settings)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    "family",
    [family if often else pytest.param(family, marks=pytest.mark.release) for family, often in STAGES_RUN.items()],
)
def test_every_stage(family: str, prepared: Path, pods: RunPods) -> None:
    tokenizer = load_tokenizer(prepared / "models/run/data" / TOKENIZER)
    folder = prepared / "models" / "brought" / family
    tiny(family, vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    scores = AutoConfig.from_pretrained(folder).model_type in SCORERS
    for kind in KINDS if scores else KINDS.keys() - WITH_A_HEAD:
        config = stage(prepared, family, kind, f"pvc://models/brought/{family}")
        result = pods(config, PYTHONPATH=PYTHONPATH).run().result
        made = losses(config)
        assert len(made) >= 2, (kind, made)
        assert all(map(math.isfinite, made.values())), (kind, made)
        assert result
        kept = AutoModelForSequenceClassification if kind == "rewardModel" else AutoModelForCausalLM
        model, told = kept.from_pretrained(local_path(result.uri, str(prepared)), output_loading_info=True)
        assert model.config.model_type == family
        assert not told["missing_keys"], (kind, told)
