"""Whatever pods and Jobs look like: a decision is made, it deletes nothing of others, and it stands."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_operator.kube.plan import Manifest
from llm_operator.training.reconcile import reconcile
from tests.unit.training import scenes
from tests.unit.world import START, World

HOURS = ("1970-01-01T00:00:01Z", "2025-12-31T23:00:00Z", "2026-01-01T00:00:00Z", "2036-01-01T00:00:00Z")
TIMES = st.sampled_from(HOURS)
CODES = st.sampled_from([0, 1, 65, 75, 78, 79, 81, 82, 137, 143, 255])
SUCCEEDED = '{"reason": "Succeeded", "progress": {"stage": "base", "attempt": 1}}'
WORDS = st.sampled_from(["", "a log's tail", '{"reason": "Killed"}', SUCCEEDED])
WAITING = st.sampled_from(["ContainerCreating", "PodInitializing", "CrashLoopBackOff", "ImagePullBackOff", "Odd"])


def states() -> st.SearchStrategy[dict[str, Any]]:
    ended = st.fixed_dictionaries({"exitCode": CODES}, optional={"finishedAt": TIMES, "message": WORDS})
    return st.one_of(
        st.just({}),
        st.just({"running": {}}),
        st.builds(lambda reason: {"waiting": {"reason": reason}}, WAITING),
        st.builds(lambda end: {"terminated": end}, ended),
    )


def containers(name: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(st.fixed_dictionaries({"name": st.just(name)}, optional={"state": states()}), max_size=1)


def conditions(*kinds: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    reasons = st.sampled_from(["Unschedulable", "SchedulingGated", "DeletionByTaintManager", "Odd"])
    return st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(kinds), "status": st.sampled_from(["True", "False", "Unknown"])},
            optional={"reason": reasons, "message": st.just("said"), "lastTransitionTime": TIMES},
        ),
        max_size=2,
        unique_by=lambda condition: condition["type"],
    )


POD_STATUS = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
        "conditions": conditions("PodScheduled", "DisruptionTarget", "Ready"),
        "containerStatuses": containers("trainer"),
        "initContainerStatuses": containers("mesh-init"),
    },
)
METADATA = st.fixed_dictionaries({}, optional={"deletionTimestamp": TIMES, "deletionGracePeriodSeconds": st.just(120)})
PODS = st.lists(st.tuples(st.sampled_from(["0", "1", "", "²", None]), METADATA, st.none() | POD_STATUS), max_size=4)
JOB = st.fixed_dictionaries(
    {},
    optional={"conditions": conditions("Complete", "SuccessCriteriaMet", "FailureTarget", "Failed", "Suspended")},
)


def pod(job: Manifest, number: int, index: str | None, metadata: Manifest, status: Manifest | None) -> Manifest:
    name = job["metadata"]["name"]
    labels = {**job["metadata"]["labels"], "batch.kubernetes.io/job-name": name}
    if index is not None:
        labels["batch.kubernetes.io/job-completion-index"] = index
    made = {"name": f"{name}-{number}", "namespace": "team", "uid": f"pod-{number}", "labels": labels, **metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, **({} if status is None else {"status": status})}


def settled(world: World, now: float) -> bool:
    for _ in range(20):
        plan = reconcile(scenes.observed(world, now=now), now)
        theirs = {name for kind, name in world.objects if kind == "Pod"}
        kinds = ("Job", "ConfigMap", "Service", "NetworkPolicy")
        assert all(child.kind in kinds and child.name not in theirs for child in plan.delete)
        world.execute(plan)
        if plan.empty:
            return True
    return False


@settings(max_examples=3 * settings().max_examples)
@given(PODS, JOB, st.none() | TIMES, st.booleans(), st.booleans(), st.booleans())
def test_any_world_is_decided_and_converges(
    pods: list[tuple[str | None, Manifest, Manifest | None]],
    job_status: Manifest,
    deleted: str | None,
    suspended: bool,
    invalid: bool,
    seen_to_go: bool,
) -> None:
    world = scenes.scene()
    scenes.run_stage(world)
    scenes.run_pods(world)
    scenes.settle(world)
    job = scenes.newest_job(world)
    for at in [at for at in world.objects if at[0] == "Pod"]:
        del world.objects[at]
    job["status"] = job_status
    job["spec"]["suspend"] = suspended
    if deleted:
        job["metadata"]["deletionTimestamp"] = deleted
    made = [pod(job, number, *one) for number, one in enumerate(pods)]
    if seen_to_go:
        world.departed = copy.deepcopy(made)
    else:
        world.objects |= {("Pod", one["metadata"]["name"]): one for one in made}
    if invalid:
        world.owner["spec"]["stages"][1]["globalBatchSize"] = 3
    for seconds in (0, 1, 15, 300, 7200):
        assert settled(world, START + seconds)
