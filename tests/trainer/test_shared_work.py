"""Rows and layers that processes share: the same losses, figures and result as without, through a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llm_trainer.config import StageConfig
from llm_trainer.protocol import ExitCode
from tests.trainer.conftest import SFT, RunPods, Stage, stage_config
from tests.trainer.pods import evaluations, losses
from tests.trainer.test_families import FAMILIES, SHORT

NO_DROPOUT = {"gpt2": {"embd_pdrop": 0, "resid_pdrop": 0, "attn_pdrop": 0}}
ROWS, LAYERS = {"sequenceParallel": 2}, {"tensorParallel": 2}


def of_family(family: str) -> dict[str, Any]:
    return {"architecture": {"family": family, "config": FAMILIES[family] | NO_DROPOUT.get(family, {})}}


def assert_same(one: StageConfig, other: StageConfig) -> None:
    """In losses, held-out figures and weights."""
    expected, made = losses(one), losses(other)
    assert sorted(made) == sorted(expected)
    assert max(abs(made[step] - expected[step]) for step in made) < 1e-4, (expected, made)
    for step, figures in evaluations(one).items():
        assert evaluations(other)[step] == pytest.approx(figures, abs=1e-3)
    first, second = exported(one), exported(other)
    assert {name: weight.shape for name, weight in first.items()} == {
        name: weight.shape for name, weight in second.items()
    }
    apart = max(float((weight - second[name]).abs().max()) for name, weight in first.items())
    assert apart < 2e-3, f"weights differ by {apart}, after 6 steps of 0.001"


def exported(config: StageConfig) -> dict[str, torch.Tensor]:
    """The weights of its last result."""
    return load_file(max((Path(config.stage_folder) / "results").iterdir()) / "model.safetensors")


@pytest.mark.parametrize(
    ("family", "shared"),
    [
        pytest.param("gpt2", ROWS, marks=pytest.mark.release),
        ("mixtral", ROWS),
        pytest.param("deepseek_v3", ROWS, marks=pytest.mark.release),
        ("qwen3", LAYERS),
    ],
    ids=["gpt2 rows", "mixtral rows", "deepseek_v3 rows", "qwen3 layers"],
)
def test_two_processes_as_one(family: str, shared: dict[str, int], pretrain: Stage, pods: RunPods) -> None:
    """Packed documents, which lie on both processes; experts whose balance counts; norms of heads."""
    name = family.replace("_", "-")
    alone = pretrain(f"{name}-alone", nodes=1, model=of_family(family), zeroStage=2, **SHORT)
    pods(alone).run()
    together = pretrain(f"{name}-together", model=of_family(family), zeroStage=2, **shared, **SHORT)
    pods(together).run()
    assert_same(alone, together)


@pytest.mark.parametrize(
    ("shared", "zero_stage"),
    [(ROWS, 3), pytest.param(ROWS | {"sequenceParallel": 4}, 1, marks=pytest.mark.release), (LAYERS, 1)],
    ids=["2", "4", "layers"],
)
def test_four_processes_as_one_after_a_preemption(
    shared: dict[str, int], zero_stage: int, pretrain: Stage, pods: RunPods
) -> None:
    """With two groups of two, or one of four of whose heads of keys there are two."""
    name = f"four-{next(iter(shared.items()))[0][:3].lower()}-{zero_stage}"
    alone = pretrain(f"{name}-alone", nodes=1, **SHORT)
    pods(alone).run()
    settings = {"nodes": 4, "zeroStage": zero_stage, **shared, **SHORT}
    first = pods(pretrain(name, **settings)).start()
    first.until_step(3)
    first.pods[1].process.terminate()
    assert [word.exit_code for word in first.wait()] == [ExitCode.PREEMPTED] * 4
    second = pretrain(name, attempt=2, **settings)
    pods(second).run()
    assert_same(alone, second)


@pytest.mark.parametrize("shared", [ROWS, LAYERS], ids=["rows", "layers"])
def test_fine_tuning(shared: dict[str, int], prepared: Path, base: str, pods: RunPods) -> None:
    """Rows of any length, of which only answers count."""
    name, settings = f"sft-{next(iter(shared))[:3]}", {**SFT, "epochs": 0.25, "maxLength": 63}
    alone = stage_config(prepared, f"{name}-alone", nodes=1, model={"uri": base}, sft=settings)
    pods(alone).run()
    together = stage_config(prepared, name, model={"uri": base}, sft=settings | shared)
    pods(together).run()
    assert_same(alone, together)


@pytest.mark.parametrize(
    ("family", "shared", "said"),
    [("jamba", ROWS, "sequenceParallel: 2 is not for"), ("mixtral", LAYERS, "tensorParallel: 2 is not for")],
)
def test_a_family_that_cannot(family: str, shared: dict[str, int], said: str, pretrain: Stage, pods: RunPods) -> None:
    words = pods(pretrain(f"cannot-{family}", model=of_family(family), **shared, **SHORT)).start().wait()
    assert words[0].exit_code == ExitCode.CONFIGURATION, words
    assert said in words[0].message
