"""Dropout on several processes: each leaves out units of its own, in our loop and on TRL's trainers, from step 1 on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from llm_trainer.config import StageConfig
from tests.trainer.conftest import SFT, RunPods, Stage, stage_config
from tests.trainer.pods import forget_the_end, losses

DROPOUT = {"architecture": {"family": "gpt2", "config": {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128}}}


def states(config: StageConfig) -> list[torch.Tensor]:
    """Of torch's generator, by rank, in the newest checkpoint."""
    newest = max((Path(config.stage_folder) / "checkpoints").glob("step-*"))
    files = sorted(newest.glob("random-*.pt"))
    assert len(files) == 2, [file.name for file in newest.iterdir()]
    return [torch.load(file, weights_only=True)["torch"] for file in files]


def test_pretrain(pretrain: Stage, pods: RunPods) -> None:
    config = pretrain("dropout", model=DROPOUT, steps=2)
    pods(config).run()
    assert not torch.equal(*states(config))


def test_an_existing_model_goes_on_with_it(pretrain: Stage, pods: RunPods) -> None:
    """A model that was read comes for evaluation: an attempt that went on had no dropout until its first one."""
    began = pods(pretrain("dropout-begun", model=DROPOUT, steps=2)).run()
    assert began.result
    given = {"model": {"uri": began.result.uri}, "steps": 4, "checkpoint": {"everySteps": 2}}
    config = pretrain("dropout-again", **given)
    pods(config).run()
    expected = losses(config)
    forget_the_end(config, 4)
    pods(pretrain("dropout-again", attempt=2, **given)).run()
    assert losses(config) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("lora", [{"rank": 2, "dropout": 0.5}])
def test_on_trls_trainers(prepared: Path, base: str, pods: RunPods, lora: dict[str, Any]) -> None:
    config = stage_config(prepared, "lora-dropout", model={"uri": base}, sft={**SFT, "epochs": 0.2, "lora": lora})
    pods(config).run()
    assert not torch.equal(*states(config))
