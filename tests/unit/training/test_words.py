"""What a pod says of where things lie is taken only where the operator would have them."""

from __future__ import annotations

from typing import Any

import pytest

from llm_trainer.protocol import CheckpointInfo, Result
from tests.unit.training import scenes
from tests.unit.training.scenes import condition, digest_of, stage, status
from tests.unit.world import START, World

RUN = "pvc://models/bilingual-0123abcd"
RESULT = {"uri": f"{RUN}/stages/base/results/step-00000100", "digest": digest_of("base"), "kind": "model", "step": 100}
STEP = "step-00000100"


def result(**changes: Any) -> Result:
    return Result.model_validate({**RESULT, **changes})


@pytest.mark.parametrize(
    "uri",
    [
        f"pvc://secrets/bilingual-0123abcd/stages/base/results/{STEP}",
        f"pvc://models/other-99999999/stages/base/results/{STEP}",
        f"{RUN}-else/stages/base/results/{STEP}",
        f"{RUN}/stages/chat/results/{STEP}",
        f"{RUN}/stages/base/checkpoints/{STEP}",
        f"{RUN}/stages/base/results/../../../other/{STEP}",
        f"{RUN}/stages/base/results/{STEP}/..",
        f"{RUN}/stages/base/results",
        f"{RUN}/stages/base/results/step-x",
        f"{RUN}/data",
        f"{RUN}.stages/base/results/{STEP}",
    ],
)
def test_a_result_that_lies_elsewhere_is_told_and_not_taken(uri: str, at_base: World) -> None:
    plan = scenes.step(at_base, START, scenes.told(at_base, 10, START, result=result(uri=uri)))
    assert "result" not in stage(at_base, "base")
    assert [event.reason for event in plan.events] == ["WordRefused"]
    assert f"result.uri {uri!r}" in plan.events[0].message
    assert status(at_base)["progress"] == "10/100 10%", "the figures beside it are taken"
    again = scenes.step(at_base, START + 20, scenes.told(at_base, 10, START + 20, result=result(uri=uri)))
    assert again.events == (), "it is said once"


@pytest.mark.parametrize("base", ["pvc://secrets/x", "pvc://models/../secrets/x", "pvc://corpusx/x"])
def test_a_base_in_a_claim_that_no_field_names_is_not_taken(base: str, at_base: World) -> None:
    plan = scenes.step(at_base, START, scenes.told(at_base, 10, START, result=result(kind="adapter", base=base)))
    assert "result" not in stage(at_base, "base")
    assert [event.reason for event in plan.events] == ["WordRefused"]


@pytest.mark.parametrize("base", [f"{RUN}/stages/zero/results/{STEP}", "pvc://corpus/Llama 3", "pvc://models/語"])
def test_a_base_that_the_pods_can_read_is_taken(base: str, at_base: World) -> None:
    scenes.step(at_base, START, scenes.told(at_base, 10, START, result=result(kind="adapter", base=base)))
    assert stage(at_base, "base")["result"]["base"] == base


def test_a_checkpoint_that_lies_elsewhere_is_not_taken(at_base: World) -> None:
    other = CheckpointInfo(step=10, uri="pvc://secrets/step-00000010", time=START)
    plan = scenes.step(at_base, START, scenes.told(at_base, 10, START, checkpoint=other))
    assert "checkpoint" not in stage(at_base, "base")
    assert [event.reason for event in plan.events] == ["WordRefused"]


def test_a_stage_does_not_succeed_by_a_result_that_is_refused(at_base: World) -> None:
    last = scenes.told(at_base, 100, result=result(uri=f"pvc://secrets/stages/base/results/{STEP}"))
    for pod in scenes.pods(at_base):
        scenes.end_pod(pod, 0, "done", last, "Completed")
    scenes.newest_job(at_base)["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    plan = scenes.step(at_base)
    shown = stage(at_base, "base")
    assert shown["state"] != "Succeeded"
    assert "result" not in shown
    assert "WordRefused" in [event.reason for event in plan.events]
    assert "no last word of rank 0 with a result" in shown["attempts"][0]["message"]


def test_the_next_attempt_knows_the_checkpoint_by_its_digest(at_base: World) -> None:
    told = scenes.checkpoint(at_base, 50)
    for index, pod in enumerate(scenes.pods(at_base)):
        scenes.end_pod(pod, 137, "killed", scenes.told(at_base, 50, checkpoint=told) if index == 0 else None)
    scenes.settle(at_base)
    newest = scenes.newest_job(at_base)["metadata"]["name"]
    config = at_base.objects["ConfigMap", newest]["data"]["stage.json"]
    assert stage(at_base, "base")["checkpoint"]["digest"] == told.digest
    assert f'"{told.uri}": "{told.digest}"' in config
    assert condition(at_base, "Running")["reason"] == "Restarting"
