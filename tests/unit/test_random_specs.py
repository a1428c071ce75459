"""Whatever spec the API server may let through: it is refused in words, or its stages run to their end."""

from __future__ import annotations

from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.right_trainings import RIGHT_TRAININGS
from tests.schema_values import changed_specs, spec_schema
from tests.serving_specs import RIGHT_SERVINGS
from tests.unit.serving import scenes as servings
from tests.unit.training import scenes as trainings

TRAINING_SPECS = changed_specs(list(RIGHT_TRAININGS.values()), spec_schema("llmtrainings"))
SERVING_SPECS = changed_specs(list(RIGHT_SERVINGS), spec_schema("llmservings"))


@settings(max_examples=5 * settings.default.max_examples)
@given(TRAINING_SPECS)
def test_any_training(spec: dict[str, Any]) -> None:
    world = trainings.scene(spec)
    trainings.settle(world)
    while trainings.status(world)["phase"] == "Starting":
        trainings.run_stage(world)
    event(trainings.status(world)["phase"])
    assert trainings.status(world)["phase"] in ("Succeeded", "Invalid", "Suspended", "Pending"), trainings.status(world)


@settings(max_examples=5 * settings.default.max_examples)
@given(SERVING_SPECS, st.booleans())
def test_any_serving(spec: dict[str, Any], trained: bool) -> None:
    world, source = servings.scene(spec), servings.training("one") if trained else None
    servings.settle(world, source)
    if ("Deployment", "chat-serving") in world.objects:
        servings.run_pods(world)
        servings.settle(world, source)
    phase, waits = (
        world.owner["status"]["phase"],
        "configMap" in spec.get("chatTemplate", {}),
    )  # nobody has read it here
    event(phase)
    assert phase in ("Ready", "Waiting", "Invalid", "ScaledToZero", *["Starting"] * waits), world.owner["status"]
