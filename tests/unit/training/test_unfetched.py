"""What a stage is given from elsewhere once the data has been prepared."""

from __future__ import annotations

from typing import Any

import pytest

from llm_operator.api.training_status import DataStatus, InputStatus, StageStatus
from llm_operator.training.progress import MOST_MODELS
from llm_operator.training.unfetched import told_inputs
from llm_trainer.protocol import DataFigures, FetchedInput
from tests.specs import TRAINING, changed
from tests.unit.training import scenes
from tests.unit.training.scenes import condition, edit, run_pods, settle
from tests.unit.world import World

NEW = "hf://datasets/org/chat/rows.jsonl"


def prepared(*inputs: str) -> World:
    """The base under way, and a later stage on the first of what was fetched, if anything was."""
    world = scenes.scene(changed(TRAINING, **({"stages__1__sft__dataset__uri": inputs[0]} if inputs else {})))
    settle(world)
    run_pods(world)
    settle(world)
    told = [FetchedInput(uri=uri, revision="r", bytes=1) for uri in inputs]
    last = scenes.told(world, 100, result=scenes.result(world, "data"), data=DataFigures(), inputs=told)
    for pod in scenes.pods(world):
        scenes.end_pod(pod, 0, "done", last, "Completed")
    scenes.newest_job(world)["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    settle(world)
    return world


def accepted(world: World, uri: str) -> dict[str, Any]:
    edit(world, stages__1__sft__dataset__uri=uri)
    settle(world)
    return condition(world, "Accepted")


@pytest.mark.parametrize("inputs", [(), ("s3://corpora/chat.jsonl",)])
def test_a_dataset_that_is_named_later_is_refused_before_its_stage_has_pods(inputs: tuple[str, ...]) -> None:
    world = prepared(*inputs)
    refused = accepted(world, NEW)
    assert refused["status"] == "False"
    assert refused["message"].startswith(f"spec.stages[1].sft.dataset.uri: {NEW} was not fetched")
    assert "spec.resumeFrom" in refused["message"]
    for uri in ("pvc://corpus/chat.jsonl", *inputs):
        assert accepted(world, uri)["status"] == "True"


def data(inputs: int = 0, **more: Any) -> list[StageStatus]:
    told = [InputStatus(uri=f"hf://org/{number}", revision="r", bytes=1) for number in range(inputs)]
    return [StageStatus(name="data", kind="prepareData", **{"state": "Succeeded", "inputs": told, **more})]


@pytest.mark.parametrize(
    ("known", "is_known"),
    [
        (data(1), True),
        (data(data=DataStatus()), True),
        (data(), False),  # its last word was lost
        (data(MOST_MODELS), False),  # there may be more
        (data(1, state="Running"), False),
        ([], False),
    ],
)
def test_what_is_not_known_whole_refuses_nothing(known: list[StageStatus], is_known: bool) -> None:
    assert (told_inputs(known) is not None) is is_known
