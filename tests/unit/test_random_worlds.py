"""Whatever an operator finds: it raises nothing, deletes nothing that is not its own, and comes to rest."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llm_operator.api.serving import LLMServingStatus
from llm_operator.api.training_status import LLMTrainingStatus
from llm_operator.api.validation import load_serving, load_training
from llm_operator.kube.plan import Manifest, Plan
from llm_operator.kube.pull import Puller
from llm_operator.kube.specs import Specs
from llm_operator.serving import reconcile as serving
from llm_operator.serving.chat_template import UNKNOWN
from llm_operator.serving.observe import observe
from llm_operator.settings import Settings
from llm_operator.training import reconcile as training
from llm_operator.training.departed import Departed
from llm_operator.training.missing import Troubles
from llm_operator.training.observe import Observer
from tests.unit.random_worlds import DAMAGES, Damage, RandomWorld
from tests.unit.serving import scenes as servings
from tests.unit.training import scenes as trainings
from tests.unit.training.test_convergence import HAPPENING, happen
from tests.unit.world import START

SETTINGS = Settings()
STEPS = (0.5, 2, 15, 60, 300, 900, *[3600] * 40)  # seconds between passes

Pass = Callable[[float], tuple[Plan, Callable[[str], Plan]]]
"""One pass at a time: its plan, and what is said if a child is refused."""


def damaged(world: RandomWorld, found: list[Damage], status: type[LLMTrainingStatus | LLMServingStatus]) -> None:
    """A status that its CRD would not take is another test's (unit/kube/test_failure.py)."""
    for one in found:
        world.damage(*one)
    try:
        status.model_validate(world.owner.get("status") or {})
    except ValidationError:
        assume(False)


def comes_to_rest(world: RandomWorld, one_pass: Pass, now: float, crashes: list[int]) -> None:
    """Some passes die after so many writes; the rest is made whole, or refused where a name is taken."""
    plan, left = Plan(), list(crashes)
    for step in STEPS:
        now += step
        plan, refused = one_pass(now)
        world.check(plan)
        if taken := world.taken(plan):
            again = refused(taken)
            plan = Plan(delete=plan.delete, status=again.status)
            if not plan.delete and again.status in (None, world.owner.get("status")):
                event("refused")
                return
        elif plan.empty and not world.let_go():
            event(str(world.owner.get("status", {}).get("phase")))
            return
        world.execute(plan, left.pop() if left else None)
    raise AssertionError(f"it doesn't come to rest; the last plan: {plan}")


def of_training(world: RandomWorld) -> Pass:
    def one_pass(now: float) -> tuple[Plan, Callable[[str], Plan]]:
        cache = world.cache(*trainings.CLAIMS.values())
        observer = Observer(
            cache, Specs(load_training), Puller(cache, 10), Troubles(cache, cast(Any, None)), Departed(),
            "trainer:1", 10, sightings=world.sightings, clock=lambda: now,
        )  # fmt: skip
        observed = observer.observe(world.key)
        assert observed is not None
        return training.reconcile(observed, now), lambda said: training.apply_refused(observed, said, now)

    return one_pass


def of_serving(world: RandomWorld, source: Manifest | None) -> Pass:
    others = list(trainings.CLAIMS.values()) + ([source] if source else [])

    def one_pass(now: float) -> tuple[Plan, Callable[[str], Plan]]:
        observed = observe(
            world.cache(*others), world.key, SETTINGS, Specs(load_serving), UNKNOWN, world.sightings, now
        )
        assert observed is not None
        return serving.reconcile(observed, now), lambda said: serving.apply_refused(observed, said, now)

    return one_pass


@settings(max_examples=5 * settings.default.max_examples)
@given(st.lists(HAPPENING, max_size=10), DAMAGES, st.lists(st.integers(0, 5), max_size=5))
def test_any_world_of_a_training(happenings: list[str], found: list[Damage], crashes: list[int]) -> None:
    world, now = RandomWorld(trainings.scene().owner), START
    for what in happenings:
        happen(world, what)
        now += 100
        trainings.settle(world, now)
    world.own_pods("Job")
    damaged(world, found, LLMTrainingStatus)
    comes_to_rest(world, of_training(world), now, crashes)


@settings(max_examples=5 * settings.default.max_examples)
@given(
    st.sampled_from([None, "one", "two"]),
    st.booleans(),
    st.booleans(),
    DAMAGES,
    st.lists(st.integers(0, 4), max_size=5),
)
def test_any_world_of_a_serving(
    digest: str | None, pods: bool, ready: bool, found: list[Damage], crashes: list[int]
) -> None:
    scene = servings.scene()
    servings.settle(scene, servings.training("one"))
    if pods:
        servings.run_pods(scene, ready=ready)
        servings.settle(scene, servings.training("one"))
    world = RandomWorld(scene.owner, copy.deepcopy(scene.objects))
    world.own_pods("Deployment")
    damaged(world, found, LLMServingStatus)
    comes_to_rest(world, of_serving(world, servings.training(digest) if digest else None), START, crashes)
