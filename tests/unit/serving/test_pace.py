"""How often new results of a training roll out."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llm_operator.kube.plan import Manifest, Plan
from llm_operator.serving.annotations import MODEL_DIGEST, adapters_in, model_in
from llm_operator.serving.families import why_it_does_not_fit, why_not_served
from llm_operator.serving.observe import template_facts
from llm_operator.serving.reconcile import reconcile
from tests import hostile
from tests.specs import SERVING, changed
from tests.unit.serving import scenes
from tests.unit.serving.scenes import condition, run_pods, settle, training
from tests.unit.world import START, World

INTERVAL = 60.0


def step(world: World, source: Manifest, age: float, now: float = START) -> Plan:
    """``age``: seconds for which the template that is applied has been seen."""
    seen = replace(scenes.observed(world, source, now=now), rollout_interval=INTERVAL, template_age=age)
    plan = reconcile(seen, now)
    world.execute(plan)
    return plan


def serving_the_first(spec: dict[str, Any] | None = None) -> World:
    world = scenes.scene(spec)
    settle(world, training("one"))
    run_pods(world)
    settle(world, training("one"))
    return world


def digest(world: World) -> str:
    template = world.objects["Deployment", "chat-serving"]["spec"]["template"]
    return str(template["metadata"]["annotations"][MODEL_DIGEST])


def test_a_result_waits_until_the_last_rollout_is_old_enough() -> None:
    world = serving_the_first()
    plan = step(world, training("two"), age=20)
    assert (plan.apply, plan.requeue_after) == ((), 40)
    assert digest(world) == "sha256:one"
    told = condition(world, "Progressing")
    assert (told["status"], told["reason"]) == ("True", "ResultWaits")
    assert "every 60 s at most (the operator's setting rollout_interval_seconds)" in told["message"]
    assert condition(world, "Ready")["status"] == "True"
    assert step(world, training("two"), age=59).status is None, "the words stand"
    step(world, training("three"), age=60)
    assert digest(world) == "sha256:three", "the newest, and those between never"


def test_the_first_result_and_a_missing_deployment_never_wait() -> None:
    world = scenes.scene()
    step(world, training("one"), age=0)
    assert digest(world) == "sha256:one"


def test_a_change_of_the_spec_takes_along_what_waits() -> None:
    world = serving_the_first()
    step(world, training("two"), age=1)
    world.owner["spec"]["maxModelLength"] = 64
    world.owner["metadata"]["generation"] += 1
    step(world, training("two"), age=1)
    assert digest(world) == "sha256:two"


def test_another_number_of_replicas_is_no_reason_to_wait() -> None:
    world = serving_the_first()
    step(world, training("two"), age=1)
    world.owner["spec"]["replicas"] = 3
    world.owner["metadata"]["generation"] += 1
    step(world, training("two"), age=1)
    assert world.objects["Deployment", "chat-serving"]["spec"]["replicas"] == 3


def test_an_adapter_waits_too() -> None:
    spec = changed(SERVING, adapters=[{"name": "legal", "training": {"name": "bilingual", "stage": "legal"}}])
    world = scenes.scene(spec)
    settle(world, scenes.with_adapter("a"))
    run_pods(world)
    settle(world, scenes.with_adapter("a"))
    before = copy.deepcopy(world.objects["Deployment", "chat-serving"]["spec"]["template"])
    step(world, scenes.with_adapter("b"), age=1)
    assert world.objects["Deployment", "chat-serving"]["spec"]["template"] == before
    step(world, scenes.with_adapter("b"), age=61)
    assert world.objects["Deployment", "chat-serving"]["spec"]["template"] != before


def test_a_result_each_second_rolls_out_once_an_interval() -> None:
    world, rolled_at, applied = serving_the_first(), START, []
    for second in range(1, 301):
        now = START + second
        plan = step(world, training(f"{second:03d}"), age=now - rolled_at, now=now)
        if any(child["kind"] == "Deployment" for child in plan.apply):
            rolled_at = now
            applied.append(second)
            run_pods(world)
    assert applied == [60, 120, 180, 240, 300]


@given(
    st.dictionaries(st.sampled_from(sorted(hostile.ANNOTATIONS)), st.sampled_from([*hostile.ANNOTATIONS.values(), ""]))
)
def test_annotations_of_others_are_no_results_that_we_could_not_have_written(told: dict[str, str]) -> None:
    assert model_in({**hostile.ANNOTATIONS, **told}) is None
    assert adapters_in({**hostile.ANNOTATIONS, **told}) == []


def test_an_edited_template_keeps_nothing_back() -> None:
    world = serving_the_first()
    found = world.objects["Deployment", "chat-serving"]["spec"]["template"]["metadata"]["annotations"]
    found.update({key: text for key, text in hostile.ANNOTATIONS.items() if not key.endswith("/template")})
    step(world, training("two"), age=1)
    assert world.owner["status"]["phase"] != "Unknown"


def test_facts_are_the_templates_that_are_applied() -> None:
    world = serving_the_first()
    assert len(template_facts(world.of("Deployment"))) == 1
    assert template_facts([{"metadata": {}}]) == []


@given(st.sampled_from(sorted(hostile.TRAININGS)))
def test_a_training_that_nobody_validated_costs_its_serving_nothing(title: str) -> None:
    """A hundred million heads were tried one by one; a format of two billion characters was filled in."""
    source, spec = {"metadata": {"name": "bilingual"}, "spec": hostile.TRAININGS[title]}, hostile.gpu_serving()
    why_not_served(source, spec)
    why_it_does_not_fit(source, spec)
