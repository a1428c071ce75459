"""What data preparation is told of the mixtures of later stages, and what its answer says of one that is changed."""

from __future__ import annotations

from typing import Any

import pytest

from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.training_status import DataStatus, ProgressStatus, StageStatus
from llm_operator.training.bounds import DATA_SOURCES
from llm_operator.training.mixtures import MOST_SHARES, token_problems
from llm_operator.training.stages import prepare_data
from llm_operator.training.status import tokens_column
from llm_trainer.protocol import DataFigures
from tests.specs import MIXED, TRAINING, changed
from tests.unit.training import scenes
from tests.unit.training.scenes import condition, edit, run_pods, settle, stage
from tests.unit.world import World

TOKENS = {"books": 50_000, "web-ja": 9_000}


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


def prepared(tokens: dict[str, int]) -> World:
    """A training whose second stage has a mixture, once data preparation has ended well and told this."""
    stages = [*TRAINING["stages"][:1], pretrain("more", mixture={}, tokens=102_400, model="base")]
    del stages[1]["pretrain"]["steps"]
    world = scenes.scene(changed(TRAINING, **MIXED, stages=stages))
    settle(world)
    run_pods(world)
    settle(world)
    figures = DataFigures(sources=tokens)
    last = scenes.told(world, 100, result=scenes.result(world, "data"), data=figures)
    for pod in scenes.pods(world):
        scenes.end_pod(pod, 0, "done", last, "Completed")
    scenes.newest_job(world)["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    settle(world)
    return world


@pytest.mark.parametrize(
    ("mixture", "says"),
    [
        (
            {"weights": [{"source": "web-ja"}], "maxEpochs": [{"epochs": 2}]},
            "asks for 102,400 tokens, and spec.stages[1].pretrain.mixture.maxEpochs leaves 17,920: web-ja 17,920 (",
        ),
        (
            {"schedule": [{"fromShare": 0.5, "weights": [{"language": "ja"}]}], "maxEpochs": [{"epochs": 1}]},
            "spec.stages[1].pretrain.mixture.schedule[0]: asks for 51,200 tokens",
        ),
    ],
)
def test_a_limit_that_is_impossible_is_told_while_no_pod_is_there(mixture: dict[str, Any], says: str) -> None:
    world = prepared(TOKENS)
    edit(world, stages__1__pretrain__mixture=mixture)
    scenes.run_stage(world)
    assert condition(world, "Accepted")["reason"] == "InvalidSpec"
    assert says in condition(world, "Accepted")["message"]
    assert "raise maxEpochs, add text, or lower the stage's tokens" in condition(world, "Accepted")["message"]
    assert not stage(world, "more").get("attempts")
    edit(world, stages__1__pretrain__mixture={"maxEpochs": [{"epochs": 2}]})
    settle(world)
    assert condition(world, "Accepted")["status"] == "True"
    assert len(stage(world, "more")["attempts"]) == 1


@pytest.mark.parametrize("tokens", [{"books": 50_000, "web-ja": 100}, {"books": 50_000}])
def test_a_source_without_a_row_gives_nothing(tokens: dict[str, int]) -> None:
    """Be it too small, or without any document that stayed."""
    world = prepared(tokens)
    edit(world, stages__1__pretrain__mixture={"weights": [{"language": "ja"}]})
    settle(world)
    said = condition(world, "Accepted")["message"]
    assert "mixture.weights selects no source with at least one sequence of 128 tokens" in said


@pytest.mark.parametrize(
    ("mixture", "says"),
    [
        ({"weights": [{"weight": 0}]}, "mixture.weights: sum to zero"),
        ({"weights": [{"source": "web"}]}, "and no source is so; spec.data.sources has books (book, en)"),
    ],
)
def test_what_the_spec_alone_tells(mixture: dict[str, Any], says: str) -> None:
    world = prepared(TOKENS)
    edit(world, stages__1__pretrain__mixture=mixture)
    scenes.run_stage(world)
    assert says in condition(world, "Accepted")["message"]
    assert not stage(world, "more").get("attempts")


@pytest.mark.parametrize("tokens", [{}, {f"source-{n}": 1 for n in range(DATA_SOURCES + 1)}, {"x" * 65: 1}])
def test_what_is_not_known_whole_refuses_nothing(tokens: dict[str, int]) -> None:
    world = prepared(tokens)
    assert "sources" not in stage(world, "data")["data"]
    edit(world, stages__1__pretrain__mixture={"maxEpochs": [{"epochs": 1}]})
    settle(world)
    assert condition(world, "Accepted")["status"] == "True"


def known(tokens: dict[str, int] = TOKENS, **states: Any) -> list[StageStatus]:
    data = StageStatus(name="data", kind="prepareData", state="Succeeded", data=DataStatus(sources=tokens))
    return [data, *(StageStatus(name=name, kind="pretrain", state=state) for name, state in states.items())]


def test_a_limit_counts_what_the_stage_before_has_read() -> None:
    """8,960 tokens in whole rows are two stages of 40 rows of 128, and less than three."""
    of_ja = {"weights": [{"source": "web-ja"}], "maxEpochs": [{"epochs": 1}]}
    names = ("base", "more", "last")
    stages = [
        pretrain(name, mixture=of_ja, steps=4, model=before) for name, before in zip(names, ("", *names), strict=False)
    ]
    spec = LLMTrainingSpec.model_validate(changed(TRAINING, **MIXED, stages=stages))
    [problem] = token_problems(spec, known(base="Succeeded", more="Running", last="Failed"))
    assert problem.startswith("spec.stages[2].pretrain.mixture: asks for 4,096 tokens")
    assert "leaves 768: web-ja 768 (8,960 × 1 epochs, without what is read before" in problem
    assert list(token_problems(spec, known(base="Succeeded", more="Running", last="Running"))) == []


def test_what_would_take_long_is_left_to_the_stage() -> None:
    """Whoever writes it: the operator has one thread for all."""
    schedule = [{"fromShare": n / 10, "temperature": n / 10} for n in range(1, 9)]
    of_one = {"maxEpochs": [{"epochs": 0.001}], "schedule": schedule}
    tokens = {**TOKENS, **{f"source-{n}": 1 for n in range(DATA_SOURCES - len(TOKENS))}}
    assert 9 * DATA_SOURCES < MOST_SHARES < 2 * 9 * DATA_SOURCES
    for stages, problems in ((1, 1), (2, 0)):
        spec = LLMTrainingSpec.model_validate(
            changed(TRAINING, **MIXED, stages=[pretrain(f"stage-{n}", mixture=of_one) for n in range(stages)])
        )
        assert len(list(token_problems(spec, known(tokens)))) == problems


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [(0, ""), (941, "941"), (1000, "1.0K"), (15_321, "15.3K"), (999_960, "1.0M"), (20 * 10**9, "20.0B"),
     (15 * 10**12, "15.0T"), (10**16, "10000.0T")],
)  # fmt: skip
def test_the_tokens_of_the_corpus_in_a_column(tokens: int, shown: str) -> None:
    told = StageStatus(name="data", kind="prepareData", progress=ProgressStatus(tokens=tokens))
    assert tokens_column([told]) == shown
    assert tokens_column([]) == ""
