"""What keeps a pod from starting, and who is asked about it."""

from __future__ import annotations

from typing import Any

import pytest

from llm_operator.api.training_status import LLMTrainingStatus
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import held_up
from llm_operator.kube.sightings import Sightings
from llm_operator.training.departed import Departed
from llm_operator.training.gang import short_fact, starting_fact
from llm_operator.training.missing import Suspect, trouble
from llm_operator.training.observe import suspect
from llm_operator.training.reconcile import reconcile
from llm_operator.training.waiting import NO_TROUBLE
from tests.specs import TRAINING, changed
from tests.unit.training import scenes
from tests.unit.training.scenes import KEY, claim, condition, run_pods, settle, stage
from tests.unit.world import START, World

INITIALIZING = {"waiting": {"reason": "PodInitializing"}}
CREATING = {"waiting": {"reason": "ContainerCreating"}}
FAILED = {"terminated": {"exitCode": 3, "message": "line one\nno rights\n"}}


def pod_with(*init: dict[str, Any], trainer: dict[str, Any] = INITIALIZING) -> Manifest:
    return {
        "metadata": {"name": "p-0", "uid": "u"},
        "spec": {"nodeName": "node-0"},
        "status": {
            "phase": "Pending",
            "initContainerStatuses": [{"name": f"init-{i}", **status} for i, status in enumerate(init)],
            "containerStatuses": [{"name": "trainer", "state": trainer}],
        },
    }


DONE = {"state": {"terminated": {"exitCode": 0}}}
RUNS = {"state": {"running": {}}, "started": True}
LOOPS = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": FAILED}


@pytest.mark.parametrize(
    ("pod", "reason", "says"),
    [
        (pod_with(DONE, RUNS), "Starting", "init container init-1 runs"),
        (pod_with(DONE, LOOPS), "InitContainerFailed", "init container init-1, exit code 3: no rights"),
        (pod_with({"state": FAILED}), "InitContainerFailed", "exit code 3: no rights"),
        (pod_with(DONE, {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}),
         "ImagePullFailed", "init-1 can't pull its image: no such image"),
    ],
)  # fmt: skip
def test_an_init_container_that_others_wait_for(pod: Manifest, reason: str, says: str) -> None:
    held = held_up(pod, "trainer")
    assert held
    assert held.reason == reason
    assert says in held.message


@pytest.mark.parametrize(
    "pod",
    [
        pod_with(DONE, trainer=CREATING),
        pod_with(RUNS, trainer=CREATING),  # a sidecar
        pod_with(RUNS, trainer={"running": {}}),
        pod_with(LOOPS, trainer={"running": {}}),  # a sidecar that fails: the trainer runs
        pod_with(LOOPS, trainer={"terminated": {"exitCode": 0}}),
    ],
)
def test_an_init_container_that_holds_nobody_up(pod: Manifest) -> None:
    assert held_up(pod, "trainer") is None


def test_a_scheduling_gate_is_named() -> None:
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gated"}
    pod: Manifest = {"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "example.com/budget"}]}}
    held = held_up({**pod, "status": {"conditions": [gated]}}, "trainer")
    assert held
    assert (held.reason, "example.com/budget" in held.message) == ("SchedulingGated", True)


# --- claims --------------------------------------------------------------------------------------------------------


def pinned(*terms: list[str], operator: str = "In") -> dict[str, Any]:
    found = [
        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": operator, "values": values}]}
        for values in terms
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": found}}
    return {"pods": {"affinity": {"nodeAffinity": required}}}


def near(topology: str) -> dict[str, Any]:
    term = {"topologyKey": topology, "labelSelector": {"matchLabels": {"app": "gang"}}}
    return {"pods": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}}


@pytest.mark.parametrize(
    ("modes", "changes", "held"),
    [
        (["ReadWriteOnce"], {}, True),
        (["ReadWriteOncePod"], {}, True),
        (["ReadWriteOnce", "ReadWriteMany"], {}, False),
        (["ReadWriteMany"], {}, False),
        ([], {}, False),  # half written
        (["ReadWriteOnce"], {"nodes": 1}, False),
        (["ReadWriteOnce"], {"pods": {"nodeSelector": {"kubernetes.io/hostname": "a"}}}, False),
        (["ReadWriteOncePod"], {"pods": {"nodeSelector": {"kubernetes.io/hostname": "a"}}}, True),
        (["ReadWriteOnce"], {"stages__0__pods": {"nodeSelector": {"kubernetes.io/hostname": "a"}}}, True),
        (["ReadWriteOnce"], pinned(["a"]), False),
        (["ReadWriteOncePod"], pinned(["a"]), True),
        (["ReadWriteOnce"], pinned(["a"], ["a"]), False),
        (["ReadWriteOnce"], pinned(["a"], ["b"]), True),  # terms are alternatives
        (["ReadWriteOnce"], pinned(["a", "b"]), True),
        (["ReadWriteOnce"], pinned(["a"], operator="NotIn"), True),
        (["ReadWriteOnce"], near("kubernetes.io/hostname"), False),
        (["ReadWriteOnce"], near("topology.kubernetes.io/zone"), True),
    ],
)
def test_what_one_node_can_mount(modes: list[str], changes: dict[str, Any], held: bool) -> None:
    world = scenes.scene(changed(TRAINING, **changes))
    claims = scenes.CLAIMS | {"corpus": claim("corpus", *modes)}
    plan = reconcile(scenes.observed(world, claims=claims), START)
    world.execute(plan)
    assert bool(plan.create) != held
    if held:
        assert condition(world, "Running")["reason"] == "PersistentVolumeClaimAccessMode"
        assert f"corpus has the access mode {modes[0]}" in condition(world, "Running")["message"]


# --- who is asked --------------------------------------------------------------------------------------------------


def asked(world: World, ages: dict[str, float], claims: dict[str, Manifest] = scenes.CLAIMS) -> str:
    status = LLMTrainingStatus.model_validate(world.owner["status"])
    found = suspect(status, world.of("Job"), world.of("Pod"), claims, ages)
    return f"{found['kind']} {found['metadata']['name']}" if found else ""


def test_a_job_that_lacks_pods_is_asked_about_when_it_has_had_the_time(world: World) -> None:
    settle(world)
    job = scenes.newest_job(world)["metadata"]["name"]
    assert asked(world, {short_fact(job): 4.0}) == ""
    assert asked(world, {short_fact(job): 5.0}) == f"Job {job}"


def test_a_pod_that_stays_in_creation_is_asked_about(world: World) -> None:
    settle(world)
    (pod,) = run_pods(world)
    pod["status"] = {"phase": "Pending", "containerStatuses": [{"name": "trainer", "state": CREATING}]}
    assert asked(world, {starting_fact(pod): 9.0}) == ""
    assert asked(world, {starting_fact(pod): 10.0}) == f"Pod {pod['metadata']['name']}"
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert asked(world, {starting_fact(pod): 10.0}) == ""


def test_a_claim_is_asked_about_when_the_scheduler_waits_for_it(world: World) -> None:
    settle(world)
    (pod,) = run_pods(world)
    said = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    unbound = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
    pod["status"] = {"phase": "Pending", "conditions": [unbound]}
    pending = scenes.CLAIMS | {"corpus": claim("corpus", "ReadWriteMany") | {"status": {"phase": "Pending"}}}
    assert asked(world, {}, pending) == "PersistentVolumeClaim corpus"
    assert asked(world, {}) == "", "all are bound"


def test_the_newest_warning_counts_whichever_api_wrote_it() -> None:
    who = Suspect("Pod", "team", "p", "u")
    events: list[Manifest] = [
        {"metadata": {"creationTimestamp": "2026-01-01T00:00:09Z"}, "reason": "B", "note": "of a core event",
         "deprecatedLastTimestamp": "2026-01-01T00:00:03Z"},
        {"metadata": {"creationTimestamp": "2026-01-01T00:00:01Z"}, "reason": "C", "note": "of a series",
         "eventTime": "2026-01-01T00:00:01Z", "series": {"lastObservedTime": "2026-01-01T00:00:05Z"}},
        {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}},
    ]  # fmt: skip
    assert trouble(who, events).note == "of a series"
    assert trouble(who, []) == NO_TROUBLE


# --- what is remembered --------------------------------------------------------------------------------------------


def test_an_age_is_of_what_holds_without_a_break() -> None:
    sightings = Sightings()
    assert sightings.ages(KEY, ["a"], 5.0) == {"a": 0.0}
    assert sightings.ages(KEY, ["a", "b"], 7.0) == {"a": 2.0, "b": 0.0}
    assert sightings.ages(KEY, ["b"], 8.0) == {"b": 1.0}
    assert sightings.ages(KEY, ["a"], 9.0) == {"a": 0.0}
    sightings.forget(KEY)
    assert sightings.ages(KEY, ["a"], 10.0) == {"a": 0.0}


def gone_pod(number: int, rank: int) -> Manifest:
    found = {"batch.kubernetes.io/job-completion-index": str(rank)}
    metadata = {
        "name": f"p-{number}",
        "namespace": "team",
        "uid": f"u-{number}",
        "resourceVersion": "1",
        "labels": found,
    }
    return {"metadata": metadata, "spec": {"containers": []}, "status": {"phase": "Failed"}}


def test_pods_that_are_gone_are_remembered_by_their_job_and_not_for_ever() -> None:
    departed = Departed(first=4, others=4)
    for number in range(6):
        departed.remember(f"job-{number // 2}", gone_pod(number, rank=0))
    assert departed.of(["job-0"]) == ()
    last = departed.of(["job-0", "job-2"])
    assert [pod["metadata"]["name"] for pod in last] == ["p-4", "p-5"]
    assert last[0]["status"] == {"phase": "Failed"}
    departed.remember("job-2", gone_pod(5, rank=0))
    assert len(departed.of(["job-2"])) == 2


def test_the_largest_gang_that_goes_loses_nothing_and_takes_nobody_s_last_word() -> None:
    departed = Departed()
    departed.remember("other", gone_pod(-1, rank=0))
    for rank in range(1024):
        departed.remember("job", gone_pod(rank, rank))
    assert len(departed.of(["job"])) == 1024
    for number in range(1024, 10_000):
        departed.remember("more", gone_pod(number, rank=1))
    assert [pod["metadata"]["name"] for pod in departed.of(["other", "job"])] == ["p--1", "p-0"]


def test_a_failed_init_container_is_the_cause_of_its_pods_end(at_base: World) -> None:
    pod = scenes.pods(at_base)[1]
    pod["status"] = {"phase": "Failed", "initContainerStatuses": [{"name": "mesh-init", "state": FAILED}]}
    settle(at_base)
    first = stage(at_base, "base")["attempts"][0]
    assert (first["fault"], first["reason"]) == ("Infrastructure", "InitContainerFailed")
    assert "init container mesh-init, exit code 3: no rights" in first["message"]
