"""spec.resumeFrom: what the pods are told, and a folder that another training has first."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any, cast

import pytest

from llm_operator.kube.cache import Cache
from llm_operator.kube.plan import Manifest
from llm_operator.training.observe import Observer
from llm_operator.training.occupants import Tenant, occupant
from llm_operator.training.places import folder_place, places
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
    assert f"LLMTraining old has {URI} before this one" in condition(world, "Running")["message"]
    settle(world)  # it has ended
    assert told(world).run_uri == URI


ATTEMPT = {"number": 1, "job": "old-data-1", "startTime": "2026-01-01T00:00:00Z"}
ENDED = {**ATTEMPT, "endTime": "2026-01-01T00:01:00Z"}
SUSPENDED = {**ENDED, "reason": "Suspended"}


def other(*attempts: Manifest, name: str = "old", created: str = "2025", end: str = "", **spec: Any) -> Manifest:
    stage = {"name": "data", "kind": "prepareData", "attempts": list(attempts)}
    if attempts:
        stage["startTime"] = attempts[0]["startTime"]
    over = {"type": end, "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z", "reason": "x"}
    return {
        "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}", "creationTimestamp": created},
        "spec": {**TRAINING, **spec},
        "status": {"runUri": URI, "stages": [stage], "conditions": [over] if end else []},
    }


TAKES: dict[str, Any] = {"resumeFrom": {"uri": URI}}
JUNK = {**other(), "status": {"runUri": URI, "stages": "none"}}
INVALID = {"type": "Accepted", "status": "False", "lastTransitionTime": "2026-01-01T00:01:00Z", "reason": "InvalidSpec"}


def invalid(training: Manifest) -> Manifest:
    return {**training, "status": {**training["status"], "conditions": [INVALID]}}


def pod(*, ended: bool, job: str = "old-data-1") -> Manifest:
    state = {"terminated": {"exitCode": 76}} if ended else {"running": {}}
    return {
        "metadata": {"name": f"{job}-0", "labels": {"batch.kubernetes.io/job-name": job}},
        "status": {"phase": "Running", "containerStatuses": [{"name": "trainer", "state": state}]},
    }


@pytest.mark.parametrize(
    ("found", "pods", "waits"),
    [
        (other(ATTEMPT), [], True),
        (other(ENDED), [], True),  # the next attempt comes
        (other(ATTEMPT, suspend=True), [], True),  # its pods leave
        (other(SUSPENDED, suspend=True), [pod(ended=False)], True),  # they commit a checkpoint
        (other(SUSPENDED, suspend=True), [pod(ended=True)], False),
        (other(ENDED, end="Failed"), [pod(ended=False)], False),  # which commits nothing, and its node may be lost
        (other(ENDED, suspend=True), [], False),
        (other(ENDED, end="Failed"), [], False),
        (other(ENDED, end="Succeeded"), [], False),
        (other(created="2027"), [], True),  # it is its own
        (other(created="2025", **TAKES), [], True),  # it waits as well, and was there before
        (other(created="2027", **TAKES), [], False),
        (other(created="2025", suspend=True, **TAKES), [], False),
        (invalid(other(created="2025", **TAKES)), [], False),
        (other(ENDED, created="2027", **TAKES), [], True),
        (JUNK, [], True),
    ],
)
def test_who_is_waited_for(found: Manifest, pods: list[Manifest], world: World, *, waits: bool) -> None:
    world.owner["metadata"]["creationTimestamp"] = "2026"
    mine, others = Tenant.of(world.owner), Tenant.of(found)
    assert occupant(mine, [Tenant.of(copy.deepcopy(world.owner)), others], lambda _: pods) == ("old" if waits else "")


RUNS = other(ATTEMPT)


def no_pods(_: Tenant) -> list[Manifest]:
    return []


@pytest.mark.parametrize(
    ("mine", "waits"),
    [
        (other(ATTEMPT, name="new", **TAKES), False),  # it has begun
        (other(ENDED, name="new", **TAKES), True),  # say in another folder, by a wrong URI that was corrected
        (other(name="new", **TAKES), True),
    ],
)
def test_who_has_begun_waits_for_nobody(mine: Manifest, *, waits: bool) -> None:
    assert occupant(Tenant.of(mine), [Tenant.of(RUNS)], no_pods) == ("old" if waits else "")


def test_who_has_made_something_there_waits_for_nobody() -> None:
    mine = other(ENDED, name="new", **TAKES)
    mine["status"]["stages"][0]["checkpoint"] = {"step": 1, "uri": f"{URI}/c", "time": "2026-01-01T00:00:00Z"}
    assert occupant(Tenant.of(mine), [Tenant.of(RUNS)], no_pods) == ""


def test_of_any_trainings_that_don_t_write_now_one_goes_and_the_others_wait_for_it() -> None:
    made = [
        other(*attempts, name=f"t{number}", created=created, **takes)
        for number, (attempts, created, takes) in enumerate(
            itertools.product([(), (ENDED,)], ["2025", "2026"], [{}, TAKES])
        )
    ]
    tenants = [Tenant.of(one) for one in made]
    assert [occupant(one, tenants, no_pods) for one in tenants].count("") == 1


def test_the_cache_finds_those_of_the_folder_alone() -> None:
    """Nobody walks over all trainings of a namespace, of which there may be thousands, nor reads their statuses."""
    cache = Cache()
    taker = scenes.scene(SPEC).owner
    names = {"old": other(ATTEMPT), "elsewhere": other(ATTEMPT, name="elsewhere")}
    names["elsewhere"]["status"]["runUri"] = "pvc://models/other"
    for version, training in enumerate((*names.values(), taker), 1):
        cache.put("LLMTraining", {**training, "metadata": {**training["metadata"], "resourceVersion": str(version)}})
    cache.index("LLMTraining", places)
    assert [found["metadata"]["name"] for found in cache.at("LLMTraining", "team", folder_place("team", URI))] == [
        taker["metadata"]["name"], "old",
    ]  # fmt: skip
    moved = {**names["old"], "metadata": {**names["old"]["metadata"], "resourceVersion": "9"}, "status": {}}
    cache.put("LLMTraining", moved)
    assert len(cache.at("LLMTraining", "team", folder_place("team", URI))) == 1
    cache.remove("LLMTraining", taker)
    assert cache.at("LLMTraining", "team", folder_place("team", URI)) == []


def test_who_shares_a_folder_is_read_once_for_each_of_its_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else 1,000 trainings that name one folder cost 41 ms in each pass of each of them."""
    read: list[str] = []
    of = Tenant.of

    def counted(training: Manifest) -> Tenant:
        read.append(training["metadata"]["name"])
        return of(training)

    nobody = cast(Any, None)
    observer = Observer(Cache(), nobody, nobody, nobody, nobody, "", 10.0)
    monkeypatch.setattr(Tenant, "of", counted)
    one = other(ATTEMPT)
    one["metadata"]["resourceVersion"] = "1"
    assert [observer._tenant(one).under_way for _ in range(3)] == [True] * 3
    assert read == ["old"]
    changed_since = {**one, "metadata": {**one["metadata"], "resourceVersion": "2"}, "status": {}}
    assert not observer._tenant(changed_since).under_way
    assert read == ["old", "old"]
    observer.tenants.clear()
    observer._tenant(changed_since)
    assert len(read) == 3
