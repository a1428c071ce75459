"""Trainings to begin from."""

from __future__ import annotations

import pytest

from tests.unit.training import scenes
from tests.unit.training.scenes import run_pods, settle
from tests.unit.world import World


@pytest.fixture
def world() -> World:
    return scenes.scene()


@pytest.fixture
def at_base(world: World) -> World:
    """Data is prepared, the pods of stage base run."""
    scenes.run_stage(world)
    run_pods(world)
    settle(world)
    return world
