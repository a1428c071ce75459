"""An attempt may have another number of processes than the one before: the losses are those of an unbroken run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import StageConfig
from llm_trainer.protocol import ExitCode
from tests.trainer.conftest import MODEL, PRETRAIN, SFT, RunPods, Stage, stage_config
from tests.trainer.pods import losses

MUON = {"type": "muon", "muonLearningRate": 0.02, "learningRate": 0.003}
SETTINGS: dict[str, Any] = {"steps": 60, "checkpoint": {"everySteps": 1000}, "evaluation": {"everySteps": 1000}}


def changing(make: Callable[[int, int], StageConfig], pods: RunPods) -> StageConfig:
    """One process, then two, then one, each asked to leave but the last; ``make``: of nodes and the attempt."""
    step = 0
    for attempt, nodes in enumerate((1, 2), start=1):
        running = pods(make(nodes, attempt)).start()
        running.until_step(step + 2)
        running.pods[0].process.terminate()
        words = running.wait()
        assert [word.exit_code for word in words] == [ExitCode.PREEMPTED] * nodes, words
        assert words[0].progress
        step = words[0].progress.step
    last = make(1, 3)
    notices = pods(last).run().notices
    assert [notice.reason for notice in notices] == ["ProcessesChanged"]
    assert "written by 2 processes and is read by 1" in notices[0].message
    return last


@pytest.fixture(scope="module")
def unbroken(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, float]]:
    """Losses by the optimizer."""
    from tests.trainer.pods import Pods

    found = {}
    for name, optimizer in (("adamw", PRETRAIN["optimizer"]), ("muon", MUON)):
        settings = {**PRETRAIN, **SETTINGS, "optimizer": optimizer}
        config = stage_config(prepared, f"unbroken-{name}", nodes=1, model=MODEL, pretrain=settings)
        Pods(config, tmp_path_factory.mktemp("pods"), warm=True).run()
        found[name] = losses(config)
    return found


@pytest.mark.parametrize(
    ("zero", "optimizer"),
    [
        pytest.param(0, "adamw", marks=pytest.mark.release),
        pytest.param(1, "adamw", marks=pytest.mark.release),
        pytest.param(2, "adamw", marks=pytest.mark.release),
        (3, "adamw"),
        pytest.param(2, "muon", marks=pytest.mark.release),
        (3, "muon"),
    ],
)
def test_equal_losses(
    zero: int, optimizer: str, pretrain: Stage, pods: RunPods, unbroken: dict[str, dict[int, float]]
) -> None:
    def make(nodes: int, attempt: int) -> StageConfig:
        chosen = MUON if optimizer == "muon" else PRETRAIN["optimizer"]
        settings = {**SETTINGS, "zeroStage": zero, "optimizer": chosen}
        return pretrain(f"changing-{zero}-{optimizer}", nodes=nodes, attempt=attempt, **settings)

    made = losses(changing(make, pods))
    assert sorted(made) == sorted(unbroken[optimizer])
    apart = {step: abs(loss - unbroken[optimizer][step]) for step, loss in made.items()}
    assert max(apart.values()) < (1e-3 if optimizer == "muon" else 1e-4), apart


@pytest.mark.parametrize("zero", [pytest.param(2, marks=pytest.mark.release), 3])
def test_on_one_of_trls_trainers(zero: int, prepared: Path, base: str, pods: RunPods) -> None:
    """With an adapter, whose base is in no checkpoint."""
    settings = {
        **SFT,
        "zeroStage": zero,
        "epochs": 2,
        "checkpoint": {"everySteps": 1000},
        "evaluation": {"everySteps": 1000},
    }

    def make(name: str) -> Callable[[int, int], StageConfig]:
        def config(nodes: int, attempt: int) -> StageConfig:
            return stage_config(
                prepared, name, nodes=nodes, attempt=attempt, model={"uri": base}, sft={**settings, "lora": {"rank": 4}}
            )

        return config

    whole = make(f"sft-unbroken-{zero}")(1, 1)
    pods(whole).run()
    made = losses(changing(make(f"sft-changing-{zero}"), pods))
    assert made == pytest.approx(losses(whole), abs=1e-4)
