"""A finished stage that is taken up is judged by the thresholds of who takes it up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_trainer.checkpoint.record import record_of, write_record
from llm_trainer.config import StageConfig
from llm_trainer.protocol import Progress
from llm_trainer.runtime.errors import EvaluationError
from llm_trainer.runtime.progress import Board
from llm_trainer.stages.takeover import judge_again
from tests.trainer.conftest import MODEL, PRETRAIN, SFT, stage_config

WORSE = {"metric": "bitsPerByte", "atLeast": {"stage": "base", "delta": 0.1}}


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """With a stage `base` that has told 1.0 bits per byte."""
    base = stage_config(tmp_path, "base", model=MODEL, pretrain=PRETRAIN)
    Path(base.stage_folder).mkdir(parents=True)
    write_record(Path(base.stage_folder), record_of(base, {}, told(1.0)))
    return tmp_path


def told(bits: float) -> Progress:
    return Progress(stage="chat", attempt=1, evaluation={"bitsPerByte": bits})


def chat(volumes: Path, **evaluation: Any) -> StageConfig:
    model = {"uri": "pvc://models/run/stages/base/results/step-00000020"}
    return stage_config(volumes, "chat", model=model, sft={**SFT, "evaluation": evaluation})


def test_what_passes_is_taken_over(volumes: Path) -> None:
    board = Board("chat", 1)
    judge_again(chat(volumes, gate="block", thresholds=[WORSE]), told(1.1), board)
    judge_again(chat(volumes), told(9.0), board)
    assert not board.progress.notices


def test_what_is_worse_is_refused_or_told(volumes: Path) -> None:
    with pytest.raises(EvaluationError, match=r"more than bitsPerByte 1 of stage base by more than delta 0\.1"):
        judge_again(chat(volumes, gate="block", thresholds=[WORSE]), told(1.2), Board("chat", 1))
    judge_again(chat(volumes, gate="warn", thresholds=[WORSE]), told(1.2), board := Board("chat", 1))
    assert [notice.reason for notice in board.progress.notices] == ["ThresholdMissed"]


def test_what_was_not_measured_does_not_pass(volumes: Path) -> None:
    scores = [{"metric": "capitals/acc", "min": 0.5}]
    with pytest.raises(EvaluationError, match="capitals/acc isn't known"):
        judge_again(chat(volumes, gate="block", thresholds=scores), told(1.0), Board("chat", 1))
