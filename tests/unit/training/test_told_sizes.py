"""What data preparation tells of a model's size is as good as what the spec tells."""

from __future__ import annotations

from typing import Any

import pytest

from llm_operator.training.progress import MOST_MODELS
from llm_trainer.protocol import ModelSize
from tests.specs import BROUGHT, GPUS, PAIRS, TRAINING, Spec, changed
from tests.unit.training import scenes
from tests.unit.training.scenes import edit, run_pods, settle, stage, status
from tests.unit.world import World

URI = "pvc://models/base"
BILLION = 10**9


def size(uri: str = URI, **more: Any) -> ModelSize:
    """Of 7 G parameters: on 16 GPUs ZeRO 1 takes 7 × (2 + 4 + 12 / 16) GB of each, ZeRO 3 7.9 GB."""
    figures = {
        "parameters": 7 * BILLION, "active": 7 * BILLION, "embedding": BILLION, "attention_width": 32 * 4096,
        "width": 4096, "head": BILLION // 2,
    }  # fmt: skip
    return ModelSize.model_validate({"uri": uri, **figures, **more})


def from_uri(**paths: Any) -> Spec:
    made = changed(TRAINING, model={"uri": URI}, resources=GPUS, **paths)
    made["stages"] = [{"name": "chat", "sft": PAIRS, "globalBatchSize": 16}]
    return made


def prepared(world: World, *models: ModelSize) -> None:
    """Data preparation ends well and tells of the models."""
    settle(world)
    run_pods(world)
    settle(world)
    last = scenes.told(world, 100, result=scenes.result(world, "data"), models=list(models))
    for pod in scenes.pods(world):
        scenes.end_pod(pod, 0, "done", last, "Completed")
    scenes.newest_job(world)["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    settle(world)


def accepted(world: World) -> dict[str, Any]:
    return next(one for one in status(world)["conditions"] if one["type"] == "Accepted")


def test_a_stage_that_can_not_fit_takes_no_gpu() -> None:
    world = scenes.scene(from_uri(gpuMemory="24Gi"))
    prepared(world, size())
    assert accepted(world)["reason"] == "InvalidSpec"
    assert "spec.stages[0].zeroStage: with ZeRO 1 on 16 GPUs" in accepted(world)["message"]
    assert "above spec.gpuMemory 24Gi; use zeroStage 2" in accepted(world)["message"]
    assert status(world)["phase"] == "Invalid"
    assert not stage(world, "chat").get("attempts")
    edit(world, stages__0__zeroStage=3)
    settle(world)
    assert accepted(world)["status"] == "True"
    assert len(stage(world, "chat")["attempts"]) == 1
    assert stage(world, "chat")["memoryPerProcess"] == "7.33Gi"


def test_what_fits_has_its_figures() -> None:
    world = scenes.scene(from_uri(gpuMemory="80Gi"))
    prepared(world, size())
    assert status(world)["model"] == {"parameters": 7 * BILLION, "activeParameters": 7 * BILLION}
    assert stage(world, "chat")["memoryPerProcess"] == "44Gi"
    assert stage(world, "chat")["flopsPerToken"] == 6 * 6 * BILLION + 12 * 32 * 4096 * 128


@pytest.mark.parametrize("told", [(), (size("pvc://models/other"),), (size(parameters=2**62),)])
def test_a_model_of_which_nothing_is_known_stops_nobody(told: tuple[ModelSize, ...]) -> None:
    """Nor one of which a pod tells what no model has."""
    world = scenes.scene(from_uri(gpuMemory="24Gi"))
    prepared(world, *told)
    assert "model" not in status(world)
    assert len(stage(world, "chat")["attempts"]) == 1
    assert "memoryPerProcess" not in stage(world, "chat")


def test_a_family_without_a_formula() -> None:
    architecture = {"family": "qwen2", "config": BROUGHT["qwen2"]}
    world = scenes.scene(changed(TRAINING, model={"architecture": architecture}, gpuMemory="1Gi", resources=GPUS,
                                 stages__0__globalBatchSize=16, stages__1__globalBatchSize=16))  # fmt: skip
    prepared(world, size(""))
    assert "spec.stages[0].zeroStage" in accepted(world)["message"]
    assert "use zeroStage 3 on 128 GPUs" in accepted(world)["message"]


def test_the_status_has_a_bound() -> None:
    world = scenes.scene(from_uri())
    prepared(world, *(size(f"pvc://models/{number}") for number in range(40)))
    assert len(stage(world, "data")["models"]) == MOST_MODELS
