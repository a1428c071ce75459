"""A mixture on real processes: the same rows on any number of them, told as they are read; a later stage goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import Mixture, StageConfig
from llm_trainer.data.sequences import MixedSequences, Sequences
from llm_trainer.protocol import ExitCode
from llm_trainer.stages.continued import sequences_beside, sequences_of
from tests.trainer.conftest import RunPods, Stage
from tests.trainer.pods import history, losses

STEPS, BATCH, LENGTH = 48, 8, 64
MIXTURE: dict[str, Any] = {
    "weights": [{"source": "even", "weight": 3}, {"source": "odd", "weight": 1}],
    "maxEpochs": [{"epochs": 4}],
    "schedule": [{"fromShare": 0.75, "weights": [{"source": "odd"}]}],
}
SETTINGS = {"steps": STEPS, "mixture": MIXTURE, "checkpoint": {"everySteps": 1000}, "evaluation": {"everySteps": 16}}


def test_the_same_on_one_process_and_when_their_number_changes(pretrain: Stage, pods: RunPods) -> None:
    one = pretrain("mixture-one", nodes=1, **SETTINGS)
    progress = pods(one).run()
    leaving = pods(pretrain("mixture-changing", nodes=1, **SETTINGS)).start()
    leaving.until_step(3)
    leaving.pods[0].process.terminate()
    assert [word.exit_code for word in leaving.wait()] == [ExitCode.PREEMPTED]
    two = pretrain("mixture-changing", nodes=2, attempt=2, **SETTINGS)
    told = pods(two).run()
    apart = {step: abs(loss - losses(one)[step]) for step, loss in losses(two).items()}
    assert sorted(apart) == list(range(1, STEPS + 1))
    assert max(apart.values()) < 1e-4, apart
    assert [each.model_dump() for each in told.sources] == [each.model_dump() for each in progress.sources]

    rows, switch = STEPS * BATCH, STEPS * BATCH * 3 // 4
    read = {each.source: each.tokens // LENGTH for each in told.sources}
    assert read == {"even": switch * 3 // 4, "odd": switch // 4 + rows - switch}
    assert {each.source: round(each.asked * rows) for each in told.sources} == read
    labels = {"even": "en", "odd": "en-GB"}
    assert {each.language: each.tokens // LENGTH for each in told.domains} == {
        labels[source or ""]: count for source, count in read.items()
    }
    by_step = {row["step"]: row["read"] for row in history(two) if "read" in row}
    assert by_step[16] == {"even": 16 * BATCH * LENGTH * 3 // 4, "odd": 16 * BATCH * LENGTH // 4}
    assert by_step[STEPS] == {source: count * LENGTH for source, count in read.items()}
    assert by_step.keys() == {16, 32, STEPS}


def test_without_a_mixture_what_is_read_is_told_too(pretrain: Stage, pods: RunPods) -> None:
    config = pretrain("mixture-none", nodes=1, steps=4)
    told = pods(config).run()
    assert sum(each.tokens for each in told.sources) == told.tokens == 4 * BATCH * LENGTH
    manifest = Sequences(Path(config.data_folder), LENGTH, 0).manifest
    sizes = {each.source: manifest.train_tokens(each.source or "") for each in told.sources}
    assert {each.source: each.asked for each in told.sources} == pytest.approx(
        {source: size / sum(sizes.values()) for source, size in sizes.items()}
    )


def test_a_later_stage_and_ptx_go_on_in_each_source(pretrain: Stage, pods: RunPods) -> None:
    result = pods(pretrain("mixture-first", nodes=1, steps=3, mixture={"temperature": 0})).run().result
    assert result
    second = pretrain("mixture-second", nodes=1, steps=2, model={"uri": result.uri}, mixture=MIXTURE)
    assert pods(second).run().sources
    assert fingerprint(second)["firstRows"] == {"even": 12, "odd": 12}
    assert second.pretrain
    rows = sequences_of(second, second.pretrain)
    whole = MixedSequences(Path(second.data_folder), LENGTH, 0, Mixture.model_validate(MIXTURE), 16, {})
    odd = [place.ordinal for place in map(whole.order.place, range(16)) if whole.parts[place.part].source == "odd"]
    assert isinstance(rows, MixedSequences)
    gone_on = [place for place in map(rows.order.place, range(16)) if rows.parts[place.part].source == "odd"]
    assert [place.ordinal for place in gone_on] == [12 + ordinal for ordinal in odd]
    beside = sequences_beside(second, LENGTH, 0)
    assert isinstance(beside, MixedSequences)
    assert beside.starts == rows.starts
    assert beside.asked(1) == pytest.approx([0.5, 0.5]), "the shares of the stage before"


def fingerprint(config: StageConfig) -> dict[str, Any]:
    (folder,) = (Path(config.stage_folder) / "checkpoints").glob("step-*")
    found: dict[str, Any] = json.loads((folder / "state.json").read_text())["fingerprint"]
    return found
