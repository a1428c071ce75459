"""What is chosen before the first step, and rates of a narrower model, in real runs."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.checkpoint.rollbacks import SIZE_TRIALS, TUNED
from llm_trainer.config import StageConfig
from llm_trainer.protocol import Progress
from tests.trainer.conftest import MODEL, RunPods, Stage
from tests.trainer.pods import forget_the_end, history, losses

SHORT: dict[str, Any] = {"steps": 8, "checkpoint": {"everySteps": 4}, "globalBatchSize": 8}
TUNE: dict[str, Any] = {"microBatchSize": {}}
ARCHITECTURE: dict[str, Any] = MODEL["architecture"]
APART = {**ARCHITECTURE["config"], "tie_word_embeddings": False}


def told(progress: Progress) -> list[str]:
    return [notice.message for notice in progress.notices if notice.reason == "Tuned"]


def checkpoints(config: StageConfig) -> Path:
    return Path(config.stage_folder) / "checkpoints"


@pytest.mark.parametrize("zero", [0, pytest.param(2, marks=pytest.mark.release)])
def test_a_micro_batch_by_trials(pretrain: Stage, pods: RunPods, zero: int) -> None:
    """The run is that in which the chosen size was written. A resume tries no more, and keeps it."""
    settings = {**SHORT, "zeroStage": zero}
    tuned = pretrain(f"sized-{zero}", **settings, microBatchSize=1, tune=TUNE)
    (notice,) = told(pods(tuned).run())
    assert notice.startswith("the micro-batch is 4, the largest that fits"), notice
    (row,) = [row for row in history(tuned) if "tune" in row]
    assert row["message"] == notice
    assert row["tune"]["sizes"] == [1, 2, 4]
    assert len(row["tune"]["tokensPerSecond"]) == len(row["tune"]["peakBytes"]) == 3
    assert json.loads((checkpoints(tuned) / TUNED).read_text()) == {"microBatchSize": 4}
    written = pretrain(f"size-written-{zero}", **settings, microBatchSize=4)
    pods(written).run()
    assert losses(tuned) == pytest.approx(losses(written), abs=1e-5)
    assert "tokensPerSecond" in (Path(tuned.run_folder) / "report.html").read_text()
    forget_the_end(tuned, 8)
    again = pretrain(f"sized-{zero}", attempt=2, **settings, microBatchSize=1, tune=TUNE)
    assert not told(pods(again).run())
    assert losses(again) == pytest.approx(losses(written), abs=1e-5)


def test_a_kill_in_the_midst_of_a_trial(pretrain: Stage, pods: RunPods) -> None:
    """The size that was tried then is taken for one that doesn't fit; what was tried before isn't tried again."""
    config = pretrain("sized-killed", **SHORT, microBatchSize=1, tune=TUNE, schedule={"type": "constant"})
    first, journal = pods(config).start(), checkpoints(config) / SIZE_TRIALS
    while not journal.exists() or json.loads(journal.read_text())["begun"][-1] != 2:
        assert first.pods[0].process.is_alive(), first.pods[0].log[-3000:]
        time.sleep(0.001)
    os.kill(first.pods[0].worker(), signal.SIGKILL)
    assert first.wait()[0].reason == "Killed"
    known = json.loads(journal.read_text())
    if [trial["size"] for trial in known["done"]] != [1]:
        pytest.skip("the trial was over before the kill came")
    again = pretrain("sized-killed", attempt=2, **SHORT, microBatchSize=1, tune=TUNE, schedule={"type": "constant"})
    (notice,) = told(pods(again).run())
    assert notice.startswith("the micro-batch is 1, the largest that fits; an attempt ended while 2 was tried"), notice
    assert json.loads(journal.read_text())["done"] == known["done"]


@pytest.mark.parametrize("zero", [1, pytest.param(3, marks=pytest.mark.release)])
def test_rates_of_a_narrower_model(pretrain: Stage, pods: RunPods, zero: int) -> None:
    """Spread weights are scaled as whole ones are, and a resume keeps the rates."""
    model = {"architecture": {"family": "llama", "config": APART}}
    settings = {**SHORT, "model": model, "tune": {"baseWidth": 16}, "nodes": 1}
    plain = pretrain("wide-plain", **{**settings, "zeroStage": 0})
    pods(plain).run()
    spread = pretrain(f"wide-{zero}", **{**settings, "zeroStage": zero, "nodes": 2})
    pods(spread).run()
    assert losses(spread) == pytest.approx(losses(plain), abs=1e-4)
    forget_the_end(spread, 8)
    pods(pretrain(f"wide-{zero}", **{**settings, "zeroStage": zero, "nodes": 2}, attempt=2)).run()
    assert losses(spread) == pytest.approx(losses(plain), abs=1e-4)
    unscaled = pretrain(f"wide-not-{zero}", **{**settings, "zeroStage": zero, "tune": {}, "nodes": 2})
    pods(unscaled).run()
    assert abs(losses(unscaled)[8] - losses(plain)[8]) > 0.01
