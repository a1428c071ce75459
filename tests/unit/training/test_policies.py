"""NetworkPolicies of attempts, where the operator makes any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_operator.kube.labels import JOB_NAME
from llm_operator.kube.network import DNS
from llm_operator.kube.plan import Plan
from llm_operator.training.reconcile import reconcile
from tests.specs import TRAINING, changed
from tests.unit.training import scenes
from tests.unit.training.scenes import scene, settle
from tests.unit.world import NETWORK, START, World, check_golden

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def world() -> World:
    made = scene()
    made.network = NETWORK
    scenes.run_stage(made)
    return made


def test_a_gang_is_by_itself(world: World) -> None:
    (job,) = [job for job in world.of("Job") if job["metadata"]["name"].startswith("bilingual-base-")]
    (policy,) = [one for one in world.of("NetworkPolicy") if one["metadata"]["name"] == job["metadata"]["name"]]
    check_golden(GOLDEN / "network_policy.yaml", Plan(create=(policy,)))
    assert policy["metadata"]["ownerReferences"] == job["metadata"]["ownerReferences"]
    assert policy["spec"]["podSelector"]["matchLabels"] == {JOB_NAME: job["metadata"]["name"]}


def test_it_is_there_before_the_pods() -> None:
    world = scene()
    world.network = NETWORK
    made = [child["kind"] for child in reconcile(scenes.observed(world), START).create]
    assert made.index("NetworkPolicy") < made.index("Job")


def test_it_goes_with_its_attempt(world: World) -> None:
    first = scenes.newest_job(world)["metadata"]["name"]
    scenes.fail(world)
    settle(world, START + 3600)
    names = [policy["metadata"]["name"] for policy in world.of("NetworkPolicy")]
    assert first not in names
    assert scenes.newest_job(world)["metadata"]["name"] in names


def test_it_stays_as_long_as_pods_of_its_attempt_do(world: World) -> None:
    """They may commit a checkpoint for two minutes yet, and without it everybody could reach them."""
    job = scenes.newest_job(world)["metadata"]["name"]
    pods = scenes.run_pods(world)
    settle(world, START + 30)
    world.owner["spec"]["suspend"] = True
    while ("Job", job) in world.objects:
        scenes.step(world, START + 60)
    for pod in pods:  # the simulated cluster takes them with their Job; a real one lets them end
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
        world.objects["Pod", pod["metadata"]["name"]] = pod
    settle(world, START + 90)
    assert job in [policy["metadata"]["name"] for policy in world.of("NetworkPolicy")]
    for pod in pods:
        del world.objects["Pod", pod["metadata"]["name"]]
    settle(world, START + 120)
    assert job not in [policy["metadata"]["name"] for policy in world.of("NetworkPolicy")]


def test_without_the_setting_there_is_none() -> None:
    world = scene()
    settle(world)
    assert not world.of("NetworkPolicy")


def test_what_was_made_stays_when_the_setting_changes(world: World) -> None:
    """An attempt's children never change, and a policy is none of a reason to restart it."""
    world.network = None
    assert scenes.step(world).empty


@pytest.mark.parametrize(
    ("tracker", "port"),
    [
        ({"mlflow": {"uri": "http://mlflow.tools:5000"}}, 5000),
        ({"mlflow": {"uri": "https://mlflow.example.com/team"}}, 443),
        ({"wandb": {"project": "chat", "credentials": {"name": "key"}}}, 443),
        ({"wandb": {"project": "chat"}}, None),
        ({"tensorboard": {}}, None),
        ({"mlflow": {"uri": "http://mlflow.tools:99999"}}, None),
    ],
)
def test_trackers_that_the_spec_names_are_reached(tracker: dict[str, Any], port: int | None) -> None:
    world = scene(changed(TRAINING, tracking=[tracker]))
    world.network = NETWORK
    settle(world, START)
    [policy] = world.of("NetworkPolicy")
    asked = [rule for rule in policy["spec"]["egress"] if "to" not in rule and rule != DNS]
    assert asked == ([{"ports": [{"port": port, "protocol": "TCP"}]}] if port else [])
