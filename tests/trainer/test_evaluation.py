"""What a stage's `evaluation` adds: samples, the corpus in a fine-tune, and a gate before a result is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import StageConfig
from llm_trainer.protocol import ExitCode
from tests.trainer.conftest import MODEL, SFT, RunPods, Stage, stage_config
from tests.trainer.pods import evaluations, history, losses

FORGETS = {"metric": "bitsPerByte", "atLeast": {"stage": "base", "delta": 0.5}}
PROMPTS = ["What is a class?", "Why?"]


def results(config: StageConfig) -> list[str]:
    return sorted(folder.name for folder in (Path(config.stage_folder) / "results").glob("step-*"))


@pytest.fixture
def chat(prepared: Path, base: str) -> Stage:
    """An sft stage on the base, which may be no worse on the corpus."""

    def make(stage: str, *, attempt: int = 1, gate: str = "block", rate: float = 1e-5, **changes: Any) -> StageConfig:
        evaluation = {"everySteps": 5, "corpus": True, "prompts": PROMPTS, "maxNewTokens": 8, "gate": gate,
                      "thresholds": [FORGETS]}  # fmt: skip
        settings = {**SFT, "epochs": 0.6, "optimizer": {"learningRate": rate}, "evaluation": evaluation, **changes}
        return stage_config(prepared, stage, attempt=attempt, model={"uri": base}, sft=settings)

    return make


def test_a_fine_tune_that_forgets_is_not_published_and_one_that_does_not_is(chat: Stage, pods: RunPods) -> None:
    """By a learning rate without measure; a correction of the thresholds publishes it without another step."""
    good = pods(config := chat("remembers")).run()
    assert good.result
    told = evaluations(config)
    assert told[0]["bitsPerByte"] == pytest.approx(evaluations(of_base(config))[20]["bitsPerByte"], rel=0.01)
    assert "loss" in told[good.step]
    assert "bitsPerByte/even" in told[good.step]
    assert [row["samples"][0]["prompt"] for row in history(config) if "samples" in row] == [PROMPTS[0]] * len(told)
    bad = chat("forgets", rate=0.5)
    words = pods(bad).start().wait()
    assert {word.exit_code for word in words} == {ExitCode.EVALUATION}, words
    assert words[0].reason == "EvaluationFailed"
    assert "bitsPerByte" in words[0].message
    assert "of stage base by more than delta 0.5" in words[0].message
    assert words[0].progress
    assert words[0].progress.result is None
    assert results(bad) == []
    assert [row["gate"]["missed"] != [] for row in history(bad) if "gate" in row] == [True]
    again = pods(warned := chat("forgets", attempt=2, gate="warn", rate=0.5)).run()
    assert again.result
    assert [notice.reason for notice in again.notices if notice.reason != "SmallVocabulary"] == ["ThresholdMissed"]
    assert len([row for row in history(warned) if "loss" in row]) == again.step, "no step is made twice"


def of_base(config: StageConfig) -> StageConfig:
    return config.model_copy(update={"stage": "base"})


def test_answers_to_prompts_cost_no_chance(pretrain: Stage, pods: RunPods) -> None:
    """Of each evaluation one row; a model that draws as it trains has the same losses without them."""
    keys = {**MODEL["architecture"]["config"], "attention_dropout": 0.5}  # type: ignore[dict-item]
    model = {"architecture": {"family": "llama", "config": keys}}
    asking = {"everySteps": 5, "prompts": PROMPTS, "maxNewTokens": 8, "temperature": 1}
    pods(asked := pretrain("asked", model=model, steps=10, evaluation=asking)).run()
    pods(silent := pretrain("silent", model=model, steps=10, evaluation={"everySteps": 5})).run()
    samples = {row["step"]: row["samples"] for row in history(asked) if "samples" in row}
    assert list(samples) == list(evaluations(asked))
    assert all([sample["prompt"] for sample in each] == PROMPTS for each in samples.values())
    assert losses(asked) == losses(silent)
    assert evaluations(asked) == evaluations(silent)


def test_a_result_on_the_way_that_misses_a_threshold_is_not_published(pretrain: Stage, pods: RunPods) -> None:
    evaluation = {"everySteps": 20, "gate": "block", "thresholds": [{"metric": "bitsPerByte", "max": 3.35}]}
    config = pretrain("on-the-way", publishEverySteps=5, evaluation=evaluation)
    progress = pods(config).run()
    told = evaluations(config)
    published = [f"step-{step:08d}" for step, figures in told.items() if step and figures["bitsPerByte"] <= 3.35]
    assert 0 < len(published) < 4, f"the figures {told} don't tell; choose another threshold"
    assert results(config) == published[-3:]
    blocked = [notice.message for notice in progress.notices if notice.reason == "ResultBlocked"]
    assert len(blocked) == 4 - len(published)
    assert "more than max 3.35" in blocked[0]


def test_a_threshold_that_no_result_could_meet_ends_it_before_the_first_step(chat: Stage, pods: RunPods) -> None:
    unknown = {"metric": "bitsPerByte", "atLeast": {"stage": "remembered-by-nobody"}}
    config = chat("compares", evaluation={"corpus": True, "gate": "block", "thresholds": [unknown]})
    words = pods(config).start().wait()
    assert {word.exit_code for word in words} == {ExitCode.CONFIGURATION}, words
    assert "evaluation.thresholds[0].atLeast: stage remembered-by-nobody told no bitsPerByte" in words[0].message
    assert not losses(config), "it made a step"
