"""What the pods of a training with trackers get."""

from __future__ import annotations

from typing import Any

from llm_operator.api.training import LLMTrainingSpec
from llm_operator.training.manifests import children
from llm_operator.training.stages import planned_stages, stage_config
from tests.right_trainings import RIGHT_TRAININGS
from tests.specs import TRAINING

METADATA = {"name": "chat", "namespace": "team", "uid": "u", "generation": 1}


def pods(spec: dict[str, Any], index: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the stage at this place, data preparation first: the container's environment by name, and what it reads."""
    training = {"apiVersion": "llm-operator.io/v1alpha1", "kind": "LLMTraining", "metadata": METADATA, "spec": spec}
    parsed = LLMTrainingSpec.model_validate(spec)
    stage = planned_stages(parsed)[index]
    config = stage_config(training, parsed, stage, 1, {"base": "pvc://models/base"})
    job = children(training, parsed, stage, config, "trainer:1")[-1]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    written = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {one["name"]: one for one in container["env"]}, written


def test_a_secret_is_the_kubelets_to_read_and_no_pod_waits_for_it() -> None:
    env, config = pods(RIGHT_TRAININGS["trackers"], 1)
    assert env["LLM_TRACKER_1_MLFLOW_TRACKING_TOKEN"]["valueFrom"]["secretKeyRef"] == {
        "name": "m", "key": "MLFLOW_TRACKING_TOKEN", "optional": True,
    }  # fmt: skip
    assert env["LLM_TRACKER_2_WANDB_API_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "w"
    assert not [name for name in env if name.startswith("LLM_TRACKER_0")]
    assert [next(iter(tracker)) for tracker in config["tracking"]] == ["tensorboard", "mlflow", "wandb"]


def test_data_preparation_tells_nobody() -> None:
    env, config = pods(RIGHT_TRAININGS["trackers"], 0)
    assert not [name for name in env if "TRACKER" in name]
    assert "tracking" not in config


def test_without_trackers_an_image_of_before_reads_the_configuration() -> None:
    _, config = pods(TRAINING, 1)
    assert "tracking" not in config
