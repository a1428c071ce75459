"""What the room keeps beside the cache: of whom, and for how long."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest

from llm_operator.kube.cache import Cache
from llm_operator.kube.plan import Manifest
from llm_operator.settings import Settings
from llm_operator.training.room import TrainingRoom
from tests.unit.training import scenes
from tests.unit.training.scenes import KEY
from tests.unit.world import World


@pytest.fixture
def cache(at_base: World) -> Cache:
    """The world, as the watches would tell it."""
    cache = Cache()
    for version, manifest in enumerate((at_base.owner, *at_base.of("Job"), *at_base.of("Pod")), 1):
        kept = copy.deepcopy(manifest)
        kept["metadata"].update(resourceVersion=str(version), namespace="team")
        if kept["kind"] == "Pod":
            job = kept["metadata"]["labels"]["batch.kubernetes.io/job-name"]
            kept["metadata"]["ownerReferences"] = [reference(at_base.objects["Job", job]["metadata"]["uid"], job)]
        cache.put(kept["kind"], kept)
    return cache


@pytest.fixture
def room(cache: Cache) -> TrainingRoom:
    return TrainingRoom(cache, cast(Any, None), Settings())


def reference(uid: str, name: str) -> Manifest:
    return {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": True}


def go(room: TrainingRoom, cache: Cache, pod: Manifest) -> None:
    cache.remove("Pod", pod)
    assert list(room.wakes("Pod", pod)) == []


def departed(room: TrainingRoom) -> list[str]:
    observed = room.observe(KEY)
    assert observed is not None
    return [pod["metadata"]["name"] for pod in observed.departed]


def test_a_pod_of_ours_that_goes_is_remembered(room: TrainingRoom, cache: Cache) -> None:
    first = cache.children("Pod", KEY)[0]
    go(room, cache, first)
    assert departed(room) == [first["metadata"]["name"]]


@pytest.mark.parametrize("controller", [[], [reference("somebody-elses", "job")]])
def test_a_label_alone_makes_no_child_of_a_pod_that_goes(
    room: TrainingRoom, cache: Cache, controller: list[Manifest]
) -> None:
    foreign = copy.deepcopy(cache.children("Pod", KEY)[0])
    foreign["metadata"].update(name="foreign", uid="foreign", ownerReferences=controller)
    cache.put("Pod", foreign)
    go(room, cache, foreign)
    assert departed(room) == []


def test_of_a_training_that_is_gone_nothing_is_kept(room: TrainingRoom, cache: Cache, at_base: World) -> None:
    assert scenes.status(at_base)["stages"]
    room.observe(KEY)
    observer = room._observer
    assert observer.sightings._first
    room.forget(KEY)
    assert not observer.sightings._first
    for asked in (observer.puller._poller, observer.troubles._poller):
        assert not asked._known


def test_a_claim_wakes_those_that_wait_for_one(room: TrainingRoom, cache: Cache, at_base: World) -> None:
    claim = {"metadata": {"name": "models", "namespace": "team", "uid": "c"}}
    assert list(room.wakes("PersistentVolumeClaim", claim)) == []
    waits = copy.deepcopy(at_base.owner)
    waits["metadata"]["resourceVersion"] = "99"
    waits["status"]["conditions"][-1]["reason"] = "PersistentVolumeClaimNotFound"
    cache.put("LLMTraining", waits)
    assert list(room.wakes("PersistentVolumeClaim", claim)) == [KEY]
    assert list(room.wakes("PersistentVolumeClaim", {"metadata": {**claim["metadata"], "namespace": "other"}})) == []
