"""spec.resumeFrom: what the pods are told, and a folder that another training still writes into."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from llm_operator.kube.plan import Manifest
from llm_operator.training.occupants import occupant
from llm_operator.training.reconcile import reconcile
from llm_trainer.config import StageConfig
from tests.specs import TRAINING, changed
from tests.unit.training import scenes
from tests.unit.training.scenes import condition, settle, status
from tests.unit.world import START, World

URI = "pvc://models/old-89abcdef"
SPEC = changed(TRAINING, resumeFrom={"uri": URI})


@pytest.fixture
def world() -> World:
    return scenes.scene(SPEC)


def told(world: World) -> StageConfig:
    """What the newest pods read."""
    name = scenes.newest_job(world)["metadata"]["name"]
    return StageConfig.model_validate_json(world.objects["ConfigMap", name]["data"]["stage.json"])


def test_the_pods_go_on_in_the_old_folder(world: World) -> None:
    settle(world)
    assert (told(world).run_uri, told(world).resumes) == (URI, True)
    assert told(world).attempt == 1
    assert status(world)["runUri"] == URI
    checks = told(world).prepare_data
    assert checks
    assert [check.stage for check in checks.datasets] == ["chat"]
    scenes.run_stage(world)
    assert (told(world).stage, told(world).run_uri) == ("base", URI)


def test_without_it_the_folder_is_the_training_s_own() -> None:
    own = scenes.scene()
    settle(own)
    assert (told(own).run_uri, told(own).resumes) == ("pvc://models/bilingual-0123abcd", False)
    assert status(own)["runUri"] == "pvc://models/bilingual-0123abcd"


def test_a_folder_in_use_is_waited_for(world: World) -> None:
    seen = replace(scenes.observed(world), occupant="old")
    plan = reconcile(seen, START)
    world.execute(plan)
    assert not plan.create
    assert plan.requeue_after
    assert [event.reason for event in plan.events] == ["RunFolderInUse"]
    assert condition(world, "Running")["reason"] == "RunFolderInUse"
    assert f"LLMTraining old still writes into {URI}" in condition(world, "Running")["message"]
    settle(world)  # it has ended
    assert told(world).run_uri == URI


ATTEMPT = {"number": 1, "job": "old-data-1", "startTime": "2026-01-01T00:00:00Z"}
ENDED = {**ATTEMPT, "endTime": "2026-01-01T00:01:00Z"}


def other(*attempts: dict[str, Any], run_uri: str = URI, suspend: bool = False, end: str = "") -> Manifest:
    stage = {"name": "data", "kind": "prepareData", "attempts": list(attempts)}
    if attempts:
        stage["startTime"] = attempts[0]["startTime"]
    over = {"type": end, "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z", "reason": "x"}
    return {
        "metadata": {"name": "old", "namespace": "team", "uid": "89abcdef"},
        "spec": {**TRAINING, "suspend": suspend},
        "status": {"runUri": run_uri, "stages": [stage], "conditions": [over] if end else []},
    }


@pytest.mark.parametrize(
    ("found", "writes"),
    [
        (other(ATTEMPT), True),
        (other(ENDED), True),  # the next attempt comes
        (other(ATTEMPT, suspend=True), True),  # its pods leave
        (other(ENDED, suspend=True), False),
        (other(ENDED, end="Failed"), False),
        (other(ENDED, end="Succeeded"), False),
        (other(), False),  # it waits as well
        (other(ATTEMPT, run_uri="pvc://models/other"), False),
        ({"metadata": {"name": "new", "namespace": "team", "uid": "1"}, "spec": TRAINING}, False),
    ],
)
def test_who_writes(found: Manifest, world: World, *, writes: bool) -> None:
    spec = scenes.observed(world).spec
    assert occupant(world.owner, spec, [copy.deepcopy(world.owner), found]) == ("old" if writes else "")  # type: ignore[arg-type]


def test_once_it_has_begun_it_waits_for_nobody(world: World) -> None:
    settle(world)
    assert occupant(world.owner, scenes.observed(world).spec, [other(ATTEMPT)]) == ""  # type: ignore[arg-type]
