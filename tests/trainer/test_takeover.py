"""A new training takes up the run folder of an old one: what is finished is not made again, what differs is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.checkpoint.fence import Fence
from llm_trainer.config import StageConfig, local_path
from llm_trainer.protocol import ExitCode, Progress, Termination
from tests.trainer.conftest import MODEL, PRETRAIN, SFT, RunPods, stage_config
from tests.trainer.pods import losses

SETTINGS = {**PRETRAIN, "steps": 20, "checkpoint": {"everySteps": 5}}
Training = Callable[..., StageConfig]


@pytest.fixture
def volumes(prepared: Path, tmp_path: Path) -> Path:
    """Claims of the test's own, with prepared data in pvc://models/run."""
    made = tmp_path / "volumes"
    for part in ("models/run/data", "models/run/stages/data", "corpus"):
        shutil.copytree(prepared / part, made / part)
    shutil.copy(prepared / "models/run/owners.json", made / "models/run")
    return made


@pytest.fixture
def training(volumes: Path) -> Training:
    """`training("new", "base", pretrain=…)`: a stage of the training `new`, which takes up the folder."""

    def make(name: str, stage: str, **settings: Any) -> StageConfig:
        made = stage_config(volumes, stage, **settings)
        return made.model_copy(update={"training": name, "uid": f"uid-{name}", "resumes": True})

    return make


@pytest.fixture
def base(training: Training, pods: RunPods) -> Progress:
    """The end of stage `base` in the training `old`."""
    return pods(training("old", "base", model=MODEL, pretrain=SETTINGS)).run()


def test_a_finished_stage_is_taken_over(base: Progress, training: Training, pods: RunPods, volumes: Path) -> None:
    made = losses(config := training("new", "base", model=MODEL, pretrain=SETTINGS))
    taken = pods(config, warm=False).run()
    assert base.result
    assert taken.result == base.result
    assert (taken.step, taken.tokens, taken.evaluation) == (base.step, base.tokens, base.evaluation)
    assert (taken.attempt, taken.phase, taken.checkpoint) == (1, "Done", base.checkpoint)
    assert [notice.reason for notice in taken.notices] == ["TakenOver"]
    assert "LLMTraining default/old" in taken.notices[0].message
    assert losses(config) == made, "it was trained again"
    owners = json.loads((volumes / "models/run/owners.json").read_text())
    assert [owner["name"] for owner in owners] == ["test", "old", "new"]


def test_other_pods_make_the_same_result(base: Progress, training: Training, pods: RunPods) -> None:
    others = {"zeroStage": 2, "microBatchSize": 4, "evaluation": {"everySteps": 7}, "checkpoint": {"keep": 9}}
    taken = pods(training("new", "base", nodes=1, model=MODEL, pretrain={**SETTINGS, **others})).run()
    assert taken.result == base.result


def test_a_restored_claim_may_have_another_name(
    base: Progress, training: Training, pods: RunPods, volumes: Path
) -> None:
    """And the sources of the corpus may be gone."""
    (volumes / "models/run").rename(volumes / "models/nightly")
    (volumes / "models").rename(volumes / "restored")
    shutil.rmtree(volumes / "corpus")
    run = {"runUri": "pvc://restored/nightly"}
    config = json.loads((volumes / "restored/nightly/stages/data/record.json").read_text())["config"]["prepareData"]
    config["datasets"][0]["stage"] = "base"  # is finished, so that its rows need not be there
    data = pods(training("new", "data", nodes=1, prepareData=config, **run)).run()
    assert data.result
    assert data.result.uri == "pvc://restored/nightly/data"
    taken = pods(training("new", "base", model=MODEL, pretrain=SETTINGS, **run)).run()
    assert base.result
    assert taken.result
    assert taken.result.uri == base.result.uri.replace("models/run", "restored/nightly")
    assert taken.result.digest == base.result.digest


def ended(words: list[Termination], code: ExitCode, *says: str) -> None:
    assert [word.exit_code for word in words] == [code] * len(words), words
    for text in says:
        assert text in words[0].message, words[0].message


def test_what_differs_is_told(base: Progress, training: Training, pods: RunPods, volumes: Path) -> None:
    other = {**SETTINGS, "optimizer": {"learningRate": 0.01}, "sequenceLength": 32}
    words = pods(training("new", "base", model=MODEL, pretrain=other)).start().wait()
    ended(
        words,
        ExitCode.CONFIGURATION,
        "stage 'base'",
        "optimizer.learningRate is 0.01 here and was 0.003",
        "pretrain.sequenceLength is 32 here and was 64",
        "another name",
    )
    assert "uid-new" not in (volumes / "models/run/owners.json").read_text(), "it took a folder that it can't use"


def test_data_of_other_settings_is_not_replaced(training: Training, pods: RunPods, volumes: Path) -> None:
    settings = json.loads((volumes / "models/run/stages/data/record.json").read_text())["config"]["prepareData"]
    settings["data"]["validationFraction"] = 0.2
    before = (volumes / "models/run/data/manifest.json").read_bytes()
    words = pods(training("new", "data", nodes=1, prepareData=settings)).start().wait()
    ended(words, ExitCode.CONFIGURATION, "spec.data.validationFraction is 0.2 here and was 0.1")
    assert (volumes / "models/run/data/manifest.json").read_bytes() == before


def test_a_stage_goes_on_in_the_middle(training: Training, pods: RunPods, volumes: Path) -> None:
    whole = training("old", "whole", model=MODEL, pretrain=SETTINGS)
    pods(whole).run()
    first = pods(training("old", "base", attempt=7, model=MODEL, pretrain=SETTINGS)).start()
    first.until_step(12, saved=10)
    first.kill()
    second = training("new", "base", model=MODEL, pretrain=SETTINGS)
    taken = pods(second).run()
    assert [notice.reason for notice in taken.notices] == ["TakenOver"]
    expected, made = losses(whole), losses(second)
    assert sorted(made) == sorted(expected)
    assert max(abs(made[step] - expected[step]) for step in made) < 1e-5
    rows = [json.loads(line) for line in (Path(second.stage_folder) / "history.jsonl").read_text().splitlines()]
    assert {row["attempt"] for row in rows} == {1, 7}, "it began anew"


def test_checkpoints_of_other_settings_are_not_read_and_of_other_processes_are(
    training: Training, pods: RunPods, volumes: Path, base: Progress
) -> None:
    assert base.result
    model = {"uri": base.result.uri}
    first = pods(training("old", "chat", model=model, sft=SFT)).start()
    first.until_step(7, saved=5)
    first.kill()
    words = pods(training("new", "chat", model=model, sft={**SFT, "zeroStage": 2})).start().wait()
    ended(words, ExitCode.CONFIGURATION, "checkpoints", "zeroStage is 2 here and was 1")
    taken = pods(training("new", "chat", nodes=1, model=model, sft=SFT)).run()
    assert "ProcessesChanged" in [notice.reason for notice in taken.notices]


def test_the_old_training_may_not_write_any_more(training: Training, pods: RunPods, volumes: Path) -> None:
    slow = {**SETTINGS, "steps": 4000, "checkpoint": {"everySteps": 40}}
    old = training("old", "base", nodes=1, model=MODEL, pretrain=slow)
    running = pods(old).start()
    running.until_step(3)
    pods(training("new", "other", nodes=1, model=MODEL, pretrain=SETTINGS)).run()
    ended(running.wait(), ExitCode.CONFIGURATION, "taken up by LLMTraining default/new", "spec.resumeFrom")
    again = pods(old.model_copy(update={"attempt": 2})).start().wait()
    ended(again, ExitCode.CONFIGURATION, "taken up by LLMTraining default/new")


def test_the_old_training_may_not_publish_any_more(training: Training, pods: RunPods, volumes: Path) -> None:
    never = {"everySteps": 10_000}
    slow = {**SETTINGS, "steps": 4000, "checkpoint": never, "evaluation": {"everySteps": 4000}, "publishEverySteps": 40}
    old = training("old", "base", nodes=1, model=MODEL, pretrain=slow)
    running = pods(old).start()
    running.until_step(3)
    Fence(training("new", "other")).claim()
    ended(running.wait(), ExitCode.CONFIGURATION, "taken up by LLMTraining default/new")
    assert not list((Path(old.stage_folder) / "results").glob("step-*"))


def test_an_altered_result_is_not_taken_over(base: Progress, training: Training, pods: RunPods, volumes: Path) -> None:
    assert base.result
    weights = Path(local_path(base.result.uri, str(volumes))) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    words = pods(training("new", "base", model=MODEL, pretrain=SETTINGS)).start().wait()
    assert words[0].exit_code == ExitCode.DATA
    assert "model.safetensors was altered" in words[0].message


def test_altered_data_is_not_taken_over(training: Training, pods: RunPods, volumes: Path) -> None:
    record = json.loads((volumes / "models/run/stages/data/record.json").read_text())
    shard = next((volumes / "models/run/data").rglob("*.bin"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    words = pods(training("new", "data", nodes=1, prepareData=record["config"]["prepareData"])).start().wait()
    ended(words, ExitCode.DATA, f"{shard.name} was altered")


def test_a_folder_that_is_none_is_told_with_those_that_are(training: Training, pods: RunPods) -> None:
    config = training("new", "base", nodes=1, model=MODEL, pretrain=SETTINGS, runUri="pvc://models/rum")
    ended(pods(config).start().wait(), ExitCode.CONFIGURATION, "pvc://models/rum is no run folder; there are run")
    assert not Path(config.run_folder).exists()


def test_a_lost_last_word_costs_no_second_training(base: Progress, training: Training, pods: RunPods) -> None:
    """The same training again: the stage is finished, whatever became of the pod that would have said so."""
    config = training("old", "base", attempt=2, model=MODEL, pretrain=SETTINGS)
    made = losses(config)
    assert pods(config).run().result == base.result
    assert losses(config) == made
