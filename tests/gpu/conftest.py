"""What no test on CPU can tell: the stages in pods on a GPU. Skipped where there is none; `make test-gpu` runs them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llm_trainer.config import StageConfig
from tests.trainer.conftest import pairs, prepared, prompts, stage_config
from tests.trainer.online import PYTHONPATH
from tests.trainer.pods import Pods, evaluations, losses

__all__ = ["pairs", "prepared", "prompts"]

ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
    "DS_ACCELERATOR": "cuda",
    "OMP_NUM_THREADS": "2",
    "PYTHONPATH": PYTHONPATH,
}

GpuStage = Callable[..., StageConfig]
RunPods = Callable[..., Pods]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


@pytest.fixture(scope="session")
def base(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a Llama of 86 M parameters that has learned for a minute."""
    architecture = {
        "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12,
        "num_key_value_heads": 4, "max_position_embeddings": 512,
    }  # fmt: skip
    settings = {
        "sequenceLength": 512, "steps": 100, "globalBatchSize": 32, "microBatchSize": 16,
        "optimizer": {"learningRate": 6e-4}, "schedule": {"warmupSteps": 10},
    }  # fmt: skip
    model = {"architecture": {"family": "llama", "config": architecture}}
    config = stage_config(prepared, "base", nodes=1, device="cuda", model=model, pretrain=settings)
    pods = Pods(config, tmp_path_factory.mktemp("pods"), ENVIRONMENT)
    progress = pods.run()
    print(pods.pods[0].log)
    assert str(progress.attention).startswith(("varlen", "flash")), progress.attention
    figures = evaluations(config)
    assert figures[max(figures)]["loss"] < figures[0]["loss"] - 2, figures
    assert progress.result
    return progress.result.uri


@pytest.fixture
def stage(prepared: Path) -> GpuStage:
    """`stage(name, pretrain={…}, model={…})`: a stage of one process on the GPU."""

    def make(name: str, *, attempt: int = 1, **settings: Any) -> StageConfig:
        return stage_config(prepared, name, nodes=1, attempt=attempt, **{"device": "cuda", **settings})

    return make


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[RunPods]:
    """`pods(config)`: its pod on the GPU, started as a container does; ended with the test."""
    made: list[Pods] = []

    def make(config: StageConfig, **environment: str) -> Pods:
        made.append(Pods(config, tmp_path, {**(ENVIRONMENT if config.device == "cuda" else {}), **environment}))
        return made[-1]

    yield make
    for one in made:
        one.kill()


def apart(one: StageConfig, other: StageConfig) -> float:
    """The largest difference of two runs' losses."""
    made, expected = losses(one), losses(other)
    assert sorted(made) == sorted(expected)
    return max(abs(made[step] - expected[step]) for step in made)
