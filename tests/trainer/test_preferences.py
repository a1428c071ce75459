"""Reward model and DPO on two processes, on a preference whose rule is known: the better answer says good."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from llm_trainer.config import Architecture, StageConfig, local_path
from llm_trainer.config.fine_tuning import DpoLossType
from llm_trainer.data.manifest import TOKENIZER
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.models.build import from_architecture
from llm_trainer.protocol import ExitCode
from tests.trainer.conftest import RunPods, stage_config
from tests.trainer.pods import evaluations, losses

TRAINING = {
    "epochs": 2,
    "maxLength": 64,
    "globalBatchSize": 8,
    "microBatchSize": 2,
    "precision": "float32",
    "optimizer": {"learningRate": 0.001},
    "checkpoint": {"everySteps": 5},
    "evaluation": {"everySteps": 10},
}

Preference = Callable[..., StageConfig]


@pytest.fixture
def preference(prepared: Path, base: str, pairs: str) -> Preference:
    """`preference(stage, kind, zeroStage=3, …)`: a stage on the pairs."""

    def make(stage: str, kind: str, *, nodes: int = 2, attempt: int = 1, **settings: Any) -> StageConfig:
        written = {**TRAINING, "dataset": {"uri": pairs, "validationFraction": 0.2}, **settings}
        return stage_config(prepared, stage, nodes=nodes, attempt=attempt, model={"uri": base}, **{kind: written})

    return make


@pytest.mark.parametrize("zero", [pytest.param(1, marks=pytest.mark.release), 3])
def test_reward_model_learns_the_rule(preference: Preference, pods: RunPods, prepared: Path, zero: int) -> None:
    config = preference(f"taste-{zero}", "rewardModel", zeroStage=zero)
    progress = pods(config).run()
    figures = evaluations(config)
    assert figures[max(figures)]["accuracy"] >= 0.95, figures
    assert progress.result
    assert progress.result.kind == "rewardModel"
    assert scores_of(Path(local_path(progress.result.uri, str(prepared)))) > 0


def scores_of(folder: Path) -> float:
    """By how much a good answer scores higher than a bad one, in a model that has lost nothing on its way."""
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"], "the head must come from the folder"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [f"What is a list? value {word} name{tokenizer.eos_token}" for word in ("good", "bad")]
    with torch.no_grad():
        good, bad = (float(model(**tokenizer(row, return_tensors="pt")).logits) for row in rows)
    return good - bad


@pytest.mark.parametrize(
    ("zero", "losses"), [(0, {}), (3, {"lossType": ["sigmoid", "sft"], "lossWeights": [1.0, 0.1]})]
)
def test_dpo_prefers_the_better_answer(
    preference: Preference, pods: RunPods, zero: int, losses: dict[str, Any]
) -> None:
    config = preference(f"dpo-{zero}", "dpo", zeroStage=zero, optimizer={"learningRate": 0.0003}, **losses)
    pods(config).run()
    figures = evaluations(config)
    first, last = figures[0], figures[max(figures)]
    assert first["margin"] == pytest.approx(0, abs=1e-4), "before the first step the model is its own reference"
    assert last["margin"] > first["margin"] + 0.1, figures
    assert last["logProbability/rejected"] < first["logProbability/rejected"], figures
    assert last["accuracy"] >= 0.95, figures


def test_dpo_losses_agree_and_resume(preference: Preference, pods: RunPods) -> None:
    """A run killed in mid-stage goes on with the same losses; the reference's figures are not made again."""
    whole = preference("dpo-whole", "dpo")
    pods(whole).run()
    first = pods(preference("dpo-killed", "dpo")).start()
    first.until_step(7, saved=5)
    reference = Path(first.config.stage_folder) / "reference-train.npz"
    written = reference.stat().st_mtime_ns
    os.kill(first.pods[1].worker(), signal.SIGKILL)
    first.wait()
    second = preference("dpo-killed", "dpo", attempt=2)
    pods(second).run()
    assert reference.stat().st_mtime_ns == written
    expected, made = losses(whole), losses(second)
    assert sorted(made) == sorted(expected)
    assert max(abs(made[step] - expected[step]) for step in made) < 1e-5


def test_reward_model_is_no_policy(preference: Preference, pods: RunPods, prepared: Path) -> None:
    taste = preference("no-policy", "rewardModel", nodes=1, epochs=0.1)
    result = pods(taste).run().result
    assert result
    config = preference("from-taste", "dpo", nodes=1).model_copy(update={"model": {"uri": result.uri}})
    words = pods(StageConfig.model_validate(config.model_dump())).start().wait()
    assert words[0].exit_code == ExitCode.CONFIGURATION, words
    assert "reward model" in words[0].message


@pytest.mark.parametrize("zero", [3])
def test_kto_tells_good_from_bad(preference: Preference, pods: RunPods, prepared: Path, zero: int) -> None:
    pairs = [json.loads(line) for line in (prepared / "corpus" / "pairs.jsonl").read_text().splitlines()]
    marked = [
        {"prompt": row["prompt"], "completion": row[column], "label": column == "chosen"}
        for row in pairs
        for column in ("chosen", "rejected")
    ]
    (prepared / "corpus" / "marked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in marked))
    dataset = {"uri": "pvc://corpus/marked.jsonl", "validationFraction": 0.2}
    config = preference(f"kto-{zero}", "kto", zeroStage=zero, dataset=dataset, optimizer={"learningRate": 0.0003})
    pods(config).run()
    figures = evaluations(config)
    first, last = figures[0], figures[max(figures)]
    assert first["margin"] == pytest.approx(0, abs=1e-4), figures
    assert last["margin"] > 0.1, figures


@pytest.mark.parametrize("loss", get_args(DpoLossType))
def test_trl_has_every_loss(loss: str, prepared: Path, tmp_path: Path) -> None:
    """One step in this process; that the stages learn is shown above."""
    tokenizer = load_tokenizer(prepared / "models/run/data" / TOKENIZER)
    config = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = from_architecture(Architecture(family="llama", config=config), tokenizer, half=False)
    rows = [{"prompt": f"What is {n}? ", "chosen": f"{n} good", "rejected": f"{n} bad"} for n in ("one", "two")]
    arguments = DPOConfig(
        output_dir=str(tmp_path), loss_type=[loss], use_cpu=True, bf16=False, max_steps=1, max_length=64,
        per_device_train_batch_size=2, report_to=[], save_strategy="no", gradient_checkpointing=False,
        precompute_ref_log_probs=True, label_smoothing=0.001 if loss == "exo_pair" else 0.0,
    )  # fmt: skip
    trainer = DPOTrainer(model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    assert math.isfinite(trainer.train().training_loss)
