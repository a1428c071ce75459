"""A stage that failed and was corrected never mixes what it made before with what it makes now."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import StageConfig, local_path
from llm_trainer.models.export import KEEP_PUBLISHED
from llm_trainer.protocol import Notice
from tests.trainer.conftest import SFT, RunPods, Stage, stage_config
from tests.trainer.pods import losses

SHORT = {"steps": 20, "checkpoint": {"everySteps": 5}}


def notices(found: Iterable[Notice], reason: str) -> list[str]:
    return [notice.message for notice in found if notice.reason == reason]


def checkpoints(config: StageConfig, pattern: str) -> list[str]:
    return sorted(folder.name for folder in (Path(config.stage_folder) / "checkpoints").glob(pattern))


def stop_after(pods: RunPods, config: StageConfig, step: int) -> None:
    first = pods(config).start()
    first.until_step(step, saved=1)
    first.kill()
    assert checkpoints(config, "step-*"), "nothing to mix with"


def test_other_settings_begin_the_stage_anew(pretrain: Stage, pods: RunPods) -> None:
    stop_after(pods, pretrain("diverged", **SHORT, optimizer={"learningRate": 0.1}), 12)
    second = pretrain("diverged", attempt=2, **SHORT)
    progress = pods(second).run()
    (said,) = notices(progress.notices, "StageBeginsAnew")
    assert "optimizer.learningRate is 0.003 here and was 0.1" in said
    assert checkpoints(second, "set-aside-step-*-2")
    pods(other := pretrain("never-diverged", **SHORT)).run()
    assert losses(second) == pytest.approx(losses(other)), "something of before is in it"


def test_settings_that_decide_nothing_keep_the_checkpoints(pretrain: Stage, pods: RunPods) -> None:
    stop_after(pods, pretrain("saved-more", **SHORT), 12)
    second = pretrain("saved-more", attempt=2, steps=20, checkpoint={"everySteps": 3, "keep": 1})
    progress = pods(second).run()
    assert not notices(progress.notices, "StageBeginsAnew")
    assert not checkpoints(second, "set-aside-*")
    assert progress.step == 20


def test_a_stage_on_a_dataset_begins_anew_too(prepared: Path, base: str, pods: RunPods) -> None:
    """Which transformers would resume without a word."""

    def sft(attempt: int, **changes: Any) -> StageConfig:
        return stage_config(prepared, "corrected-sft", attempt=attempt, model={"uri": base}, sft={**SFT, **changes})

    stop_after(pods, sft(1, epochs=9), 7)
    progress = pods(sft(2, maxLength=48)).run()
    (said,) = notices(progress.notices, "StageBeginsAnew")
    assert "sft.maxLength is 48 here and was 64" in said
    assert "sft.epochs is 2.0 here and was 9.0" in said


def test_the_newest_results_stay_though_older_ones_have_more_steps(pretrain: Stage, pods: RunPods) -> None:
    pods(pretrain("published", steps=20, publishEverySteps=5, checkpoint={"everySteps": 5})).run()
    second = pretrain("published", attempt=2, steps=8, publishEverySteps=4, checkpoint={"everySteps": 4})
    progress = pods(second).run()
    assert progress.result
    assert Path(local_path(progress.result.uri, second.volumes_root)).is_dir()
    results = sorted(folder.name for folder in (Path(second.stage_folder) / "results").glob("step-*"))
    assert results == ["step-00000004", "step-00000008", "step-00000020"]
    assert len(results) == KEEP_PUBLISHED
