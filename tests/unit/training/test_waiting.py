"""What a stage says that it waits for."""

from __future__ import annotations

from pathlib import Path

from llm_operator.training.reconcile import reconcile
from tests.unit.training import scenes
from tests.unit.training.scenes import (
    condition,
    fit_nowhere,
    run_pods,
    settle,
)
from tests.unit.world import START, World, check_golden

GOLDEN = Path(__file__).parent / "golden"


def test_a_missing_claim_is_waited_for(world: World) -> None:
    plan = reconcile(scenes.observed(world, claims={"models": scenes.CLAIMS["models"]}), START)
    check_golden(GOLDEN / "claim_missing.yaml", plan)
    assert not plan.create


def test_pods_that_fit_nowhere(world: World) -> None:
    settle(world)
    fit_nowhere(run_pods(world)[0])
    check_golden(GOLDEN / "unschedulable.yaml", scenes.step(world))
    assert condition(world, "Running")["reason"] == "Unschedulable"


def test_an_image_that_cannot_be_pulled(world: World) -> None:
    settle(world)
    pod = run_pods(world)[0]
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "nowhere/trainer:1"'}
    pod["status"] = {"phase": "Pending", "containerStatuses": [{"name": "trainer", "state": {"waiting": waiting}}]}
    check_golden(GOLDEN / "image_pull.yaml", scenes.step(world))
    assert condition(world, "Running")["reason"] == "ImagePullFailed"
