"""Which fields of a stage decide its result, and how a difference is told."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from llm_trainer.config import KINDS, StageConfig
from llm_trainer.stages.differences import SHOWN, differences, listed

ARCHITECTURE = {"family": "llama", "config": {"hidden_size": 64}}
PROMPTS = {"dataset": {"uri": "pvc://corpus/prompts.jsonl"}, "rewards": [{"model": {"stage": "taste"}}]}
ROWS = {"dataset": {"uri": "pvc://corpus/rows.jsonl"}}
STAGES: dict[str, dict[str, Any]] = {
    "pretrain": {"sequenceLength": 64, "steps": 10},
    "sft": ROWS,
    "rewardModel": ROWS,
    "dpo": ROWS,
    "kto": ROWS,
    "ppo": PROMPTS,
    "grpo": PROMPTS,
}


def config(kind: str, run: str = "pvc://models/run", model: Any = None, **settings: Any) -> StageConfig:
    start = {"architecture": ARCHITECTURE} if kind == "pretrain" else {"uri": f"{run}/stages/base/results/step-1"}
    return StageConfig.model_validate(
        {
            "training": "t", "namespace": "team", "uid": "1", "stage": "s", "attempt": 1, "nodes": 1,
            "processesPerNode": 1, "device": "cpu", "runUri": run, "model": model or start,
            "results": {"taste": f"{run}/stages/taste/results/step-9"}, kind: {**STAGES[kind], **settings},
        }
    )  # fmt: skip


def told(old: StageConfig, new: StageConfig, *digests: dict[str, str], whole: bool = True) -> list[str]:
    """`digests`: the old ones and the new ones."""
    before, now = digests or ({}, {})
    return differences(old, new, before, now, whole=whole)


def test_every_kind_has_a_case() -> None:
    assert set(STAGES) == set(KINDS.values())


@pytest.mark.parametrize("kind", STAGES)
def test_the_same_differs_in_nothing(kind: str) -> None:
    again = config(kind).model_copy(
        update={"attempt": 9, "uid": "2", "training": "u", "nodes": 4, "processes_per_node": 8, "device": "cuda"}
    )
    for whole in (True, False):
        assert told(config(kind), again, whole=whole) == []


@pytest.mark.parametrize("kind", STAGES)
def test_a_restored_run_folder_differs_in_nothing(kind: str) -> None:
    assert told(config(kind), config(kind, "pvc://backup/nightly/run")) == []


@pytest.mark.parametrize(
    ("kind", "settings", "says"),
    [
        ("pretrain", {"steps": 20}, "pretrain.steps is 20 here and was 10"),
        ("pretrain", {"seed": 1}, "seed is 1 here and was 0"),
        ("sft", {"optimizer": {"learningRate": 0.5}}, "optimizer.learningRate is 0.5 here and was 2e-05"),
        ("sft", {"dataset": {"uri": "pvc://corpus/b.jsonl"}},
         'sft.dataset.uri is "pvc://corpus/b.jsonl" here and was "pvc://corpus/rows.jsonl"'),
        ("sft", {"lora": {"rank": 4}}, "lora.rank is 4 here and was not set"),
        ("sft", {"assistantOnlyLoss": False}, "sft.assistantOnlyLoss is false here and was true"),
        ("dpo", {"lossType": ["sigmoid", "sft"]}, 'dpo.lossType[1] is "sft" here and was not set'),
        ("kto", {"microBatchSize": 4}, "microBatchSize is 4 here and was 2"),
        ("grpo", {"rewards": [{"model": {"stage": "taste"}, "weight": 2.0}]},
         "grpo.rewards[0].weight is 2.0 here and was 1.0"),
        ("grpo", {"rewards": [{"function": "a:b"}]}, 'grpo.rewards[0].function is "a:b" here and was not set'),
    ],
)  # fmt: skip
def test_what_decides_is_told_by_its_field(kind: str, settings: dict[str, Any], says: str) -> None:
    assert says in told(config(kind), config(kind, **settings))


@pytest.mark.parametrize(
    "settings",
    [{"microBatchSize": 2}, {"zeroStage": 2}, {"expertParallel": 2}, {"tensorParallel": 2}],
    ids=lambda one: next(iter(one)),
)
def test_how_it_is_computed_matters_only_to_a_checkpoint(settings: dict[str, Any]) -> None:
    other = config("pretrain", **settings)
    assert told(config("pretrain"), other) == []
    assert len(told(config("pretrain"), other, whole=False)) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"checkpoint": {"keep": 9}}, {"evaluation": {"everySteps": 3}}, {"publishEverySteps": 3},
        {"sequenceParallel": 2}, {"activationCheckpointing": True},
    ],
)  # fmt: skip
def test_what_is_seen_of_it_never_matters(settings: dict[str, Any]) -> None:
    assert told(config("sft"), config("sft", **settings), whole=False) == []


def test_a_mixture_by_size_is_not_none() -> None:
    """Without one the rows are of one text; with one of each source."""
    none, by_size, other = (config("pretrain", mixture=mixture) for mixture in (None, {}, {"temperature": 0.3}))
    assert told(none, by_size) == ['pretrain.mixture is "{}" here and was not set']
    assert "pretrain.mixture.temperature is 0.3 here and was not set" in told(by_size, other)
    assert told(other, none) == ["pretrain.mixture.temperature is not set here and was 0.3"]


def test_an_input_is_told_by_its_digest() -> None:
    old, elsewhere = config("sft"), config("sft", model={"uri": "pvc://other/model"})
    a, b = {"model": f"sha256:{'a' * 64}"}, {"model": f"sha256:{'b' * 64}"}
    assert told(old, elsewhere, a, a) == [], "the same files at another place"
    (said,) = told(old, config("sft"), a, b)
    assert said == (
        "model is stages/base/results/step-1 (sha256:bbbbbbbbbbbb) here and was "
        "stages/base/results/step-1 (sha256:aaaaaaaaaaaa)"
    )
    (said,) = told(old, elsewhere, a, {})
    assert said.startswith("model is pvc://other/model here and was stages/base"), "one that we have not written"


def test_the_data_and_reward_models_are_inputs() -> None:
    a, b = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
    (said,) = told(config("pretrain"), config("pretrain"), {"data": a}, {"data": b})
    assert said.startswith("data is data (sha256:b")
    field = "rewards[0].model"
    (said,) = told(config("ppo"), config("ppo"), {field: a}, {field: b})
    assert said.startswith("ppo.rewards[0].model is stages/taste/results/step-9 (sha256:b")


def test_another_kind_and_another_architecture_are_told() -> None:
    assert 'kind is "dpo" here and was "sft"' in told(config("sft"), config("dpo"))
    wide = copy.deepcopy(ARCHITECTURE)
    wide["config"] = {"hidden_size": 128}
    (said,) = told(config("pretrain"), config("pretrain", model={"architecture": wide}))
    assert said == "model.architecture.config.hidden_size is 128 here and was 64"


def test_a_long_list_is_counted() -> None:
    assert listed([str(n) for n in range(SHOWN + 3)]).endswith("7; and 3 more")
    long = told(config("sft"), config("sft", dataset={"uri": f"pvc://corpus/{'x' * 900}"}))
    assert len(long[0]) < 300
