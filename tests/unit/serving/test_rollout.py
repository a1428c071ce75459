"""How new pods take the place of old ones, and what the status says meanwhile."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from llm_operator.kube.plan import Manifest
from llm_operator.serving.reconcile import apply_refused, reconcile
from llm_operator.serving.rollout import place_of
from tests.specs import SERVING, changed
from tests.unit.serving import scenes
from tests.unit.serving.scenes import condition, run_pods, settle, training
from tests.unit.world import START, World

NO_ROOM = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
SURGE, REPLACE = ({"maxSurge": surge, "maxUnavailable": 1 - surge} for surge in (1, 0))


def rolling(world: World, **pod: Any) -> Manifest:
    """A pod of the newest template beside the one that answers, as a rollout begins."""
    settle(world, training("one"))
    run_pods(world)
    settle(world, training("one"))
    old = copy.deepcopy(world.objects["Pod", "chat-serving-0"])
    scenes.step(world, training("two"))
    run_pods(world, ready=False)
    new = {**world.objects["Pod", "chat-serving-0"], **pod}
    new["metadata"] = {**new["metadata"], "name": "chat-serving-new", "uid": "new"}
    world.objects["Pod", "chat-serving-0"], world.objects["Pod", "chat-serving-new"] = old, new
    world.objects["Deployment", "chat-serving"]["status"] = {"replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}
    return new


def unschedulable() -> Manifest:
    told = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_ROOM}
    return {"status": {"conditions": [told]}, "spec": {}}


def strategy(world: World) -> Manifest:
    found: Manifest = world.objects["Deployment", "chat-serving"]["spec"]["strategy"]
    return found


def test_an_old_pod_goes_first_where_no_node_holds_one_more() -> None:
    world = scenes.scene()
    new = rolling(world, **unschedulable())
    plan = scenes.step(world, training("two"))
    assert (plan.requeue_after, strategy(world)["rollingUpdate"]) == (60, SURGE)
    stuck = condition(world, "Progressing")
    assert (stuck["status"], stuck["reason"]) == ("False", "RolloutStuck")
    assert NO_ROOM in stuck["message"]
    assert "if no room is found within 60 s, an old pod goes first" in stuck["message"]
    waits = [scenes.step(world, training("two"), START + later) for later in (1, 30, 59)]
    assert [(plan.requeue_after, plan.status) for plan in waits] == [(59, None), (30, None), (1, None)]
    plan = scenes.step(world, training("two"), START + 60)
    assert [child["kind"] for child in plan.apply] == ["Deployment"]
    assert strategy(world)["rollingUpdate"] == REPLACE
    assert ("Normal", "ReplacingPods") in [(event.type, event.reason) for event in plan.events]
    # the old one leaves, the new one still waits for its place, then loads: nothing turns back
    world.objects["Pod", "chat-serving-0"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    settle(world, training("two"), START + 61)
    assert (strategy(world)["rollingUpdate"], condition(world, "Progressing")["status"]) == (REPLACE, "True")
    del world.objects["Pod", "chat-serving-0"]
    new["status"] = {"conditions": [{"type": "PodScheduled", "status": "True"}]}
    settle(world, training("two"), START + 62)
    assert strategy(world)["rollingUpdate"] == REPLACE
    run_pods(world)
    settle(world, training("two"), START + 63)
    assert strategy(world)["rollingUpdate"] == SURGE, "the next rollout tries again"
    assert condition(world, "Progressing")["reason"] == "RolledOut"


def test_patience_is_with_the_want_of_room_alone() -> None:
    """Not with what was in the way before, nor by the clock of who has written a condition."""
    world = scenes.scene()
    new = rolling(world)
    waiting = {"waiting": {"reason": "ImagePullBackOff"}}
    new["status"] = {"containerStatuses": [{"name": "vllm", "ready": False, "state": waiting}]}
    scenes.step(world, training("two"))
    assert condition(world, "Progressing")["status"] == "False"
    new |= unschedulable()
    for later, wanted in ((3600, SURGE), (3659, SURGE), (3660, REPLACE)):
        scenes.step(world, training("two"), START + later)
        assert strategy(world)["rollingUpdate"] == wanted


def test_a_refusal_does_not_begin_the_wait_anew() -> None:
    world = scenes.scene()
    rolling(world, **unschedulable())
    scenes.step(world, training("two"))
    for later in (60, 61, 75):
        seen = scenes.observed(world, training("two"), now=START + later)
        assert [child["kind"] for child in reconcile(seen, START + later).apply] == ["Deployment"]
        world.execute(apply_refused(seen, "Deployment chat-serving: denied by a webhook", START + later))
        told = condition(world, "Progressing")
        assert (told["status"], told["reason"]) == ("False", "RolloutStuck"), "nothing is replaced yet"
        assert "denied by a webhook" in told["message"]


@pytest.mark.parametrize(
    ("volume", "same"),
    [
        ({"configMap": {"name": "a"}}, True),
        ({"secret": {"secretName": "a"}}, True),
        ({"emptyDir": {}}, True),
        ({"projected": {"sources": []}}, True),
        ({"downwardAPI": {"items": []}}, True),
        ({"persistentVolumeClaim": {"claimName": "a"}}, False),
    ],
)
def test_volumes_that_any_node_has_room_for_are_no_place(volume: Manifest, same: bool) -> None:
    before: Manifest = {"containers": [{"resources": {}}], "volumes": [{"name": "tmp", "emptyDir": {}}]}
    after = {**before, "volumes": [*before["volumes"], {"name": "added", **volume}]}
    assert (place_of(before) == place_of(after)) == same


def test_a_pod_that_would_not_fit_in_the_old_ones_place_replaces_none() -> None:
    """Or a node selector that no node has would take down what serves."""
    world = scenes.scene()
    rolling(world, **unschedulable())
    new = world.objects["Pod", "chat-serving-new"]
    new["metadata"]["annotations"] = {**new["metadata"]["annotations"], "llm-operator.io/place": "elsewhere"}
    template = world.objects["Deployment", "chat-serving"]["spec"]["template"]
    template["metadata"]["annotations"]["llm-operator.io/place"] = "elsewhere"
    world.owner["spec"] = changed(SERVING, pods={"nodeSelector": {"gpu": "h200"}})
    for later in (0, 600):
        scenes.step(world, training("two"), START + later)
        assert strategy(world)["rollingUpdate"] == SURGE
        world.objects["Pod", "chat-serving-new"]["metadata"] |= copy.deepcopy(
            world.objects["Deployment", "chat-serving"]["spec"]["template"]["metadata"]
        )
    settle(world, training("two"), START + 601)
    assert "spec.strategy.rollingUpdate with maxSurge: 0" in condition(world, "Progressing")["message"]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"type": "Recreate"}, {"type": "Recreate"}),
        ({"rollingUpdate": {"maxSurge": 2}}, {"maxSurge": 2, "maxUnavailable": 0}),
        ({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}, REPLACE),
    ],
)
def test_what_the_spec_says_is_done(given: Manifest, made: Manifest) -> None:
    world = scenes.scene(changed(SERVING, strategy=given))
    rolling(world, **unschedulable())
    scenes.step(world, training("two"), START)
    scenes.step(world, training("two"), START + 600)
    assert strategy(world) == (made if "type" in made else {"type": "RollingUpdate", "rollingUpdate": made})


def test_pods_of_two_models_are_told() -> None:
    world = scenes.scene(changed(SERVING, replicas=2))
    rolling(world)
    world.objects["Pod", "chat-serving-new"]["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    settle(world, training("two"))
    status = world.owner["status"]
    assert (status["phase"], status["replicas"], status["updatedReplicas"], status["readyReplicas"]) == (
        "RollingOut", 3, 2, 2,
    )  # fmt: skip
    said = condition(world, "Ready")["message"]
    assert "serves pvc://models/run/one of step 100" in said
    assert "serves pvc://models/run/two of step 100" in said
    assert status["model"]["digest"] == "sha256:two", "of the newest"


def test_a_restart_by_hand_is_a_rollout_that_is_not_undone() -> None:
    """As kubectl rollout restart does it, for weights that were replaced in place."""
    world = scenes.scene()
    settle(world, training("one"))
    run_pods(world)
    settle(world, training("one"))
    deployment = world.objects["Deployment", "chat-serving"]
    deployment["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "2026-01-01"
    assert not scenes.step(world, training("one"), START + 60).apply
    assert (world.owner["status"]["phase"], world.owner["status"]["updatedReplicas"]) == ("RollingOut", 0)
    run_pods(world)
    settle(world, training("one"), START + 60)
    assert world.owner["status"]["phase"] == "Ready"


def test_a_spec_that_the_deployment_controller_has_not_seen_is_not_rolled_out() -> None:
    world = scenes.scene()
    settle(world, training("one"))
    run_pods(world)
    deployment = world.objects["Deployment", "chat-serving"]
    deployment["metadata"]["generation"], deployment["status"]["observedGeneration"] = 2, 1
    settle(world, training("one"))
    assert world.owner["status"]["phase"] == "RollingOut"
    deployment["status"]["observedGeneration"] = 2
    settle(world, training("one"))
    assert world.owner["status"]["phase"] == "Ready"


def test_pods_that_still_leave_are_not_zero() -> None:
    world = scenes.scene()
    settle(world, training("one"))
    run_pods(world)
    world.objects["Pod", "chat-serving-0"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.owner["spec"] = changed(SERVING, replicas=0)
    settle(world, training("one"))
    assert (world.owner["status"]["phase"], world.owner["status"]["replicas"]) == ("ScalingToZero", 0)
    assert "1 pods are still there" in condition(world, "Ready")["message"]
    del world.objects["Pod", "chat-serving-0"]
    settle(world, training("one"))
    assert world.owner["status"]["phase"] == "ScaledToZero"


def test_a_paused_deployment_is_told() -> None:
    world = scenes.scene()
    rolling(world)
    world.objects["Deployment", "chat-serving"]["spec"]["paused"] = True
    scenes.step(world, training("two"))
    assert condition(world, "Progressing")["reason"] == "Paused"
    assert "kubectl rollout resume deployment/chat-serving" in condition(world, "Progressing")["message"]


def test_a_rollout_beyond_its_time_is_stuck() -> None:
    world = scenes.scene()
    rolling(world)
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    world.objects["Deployment", "chat-serving"]["status"]["conditions"] = [late]
    scenes.step(world, training("two"))
    assert condition(world, "Progressing")["reason"] == "RolloutStuck"
    assert "no new pod has answered for 1800 s" in condition(world, "Progressing")["message"]


def test_a_pod_that_was_evicted_once_holds_up_nothing() -> None:
    """It stays for months; what tells of now is a pod of the newest template that nobody has taken the place of."""
    world = scenes.scene()
    new = rolling(world)
    new["metadata"]["creationTimestamp"] = "2026-01-01T00:00:10Z"
    old = world.objects["Pod", "chat-serving-0"]

    def evicted(like: Manifest, at: str) -> Manifest:
        metadata = {**like["metadata"], "name": "evicted", "uid": "evicted", "creationTimestamp": at}
        world.objects["Pod", "evicted"] = {"kind": "Pod", "metadata": metadata, "spec": {},
                                           "status": {"phase": "Failed", "reason": "Evicted"}}  # fmt: skip
        scenes.step(world, training("two"))
        return condition(world, "Progressing")

    assert evicted(old, "2025-12-01T00:00:00Z")["reason"] == "RollingOut"
    assert "Evicted" not in condition(world, "Ready")["message"]
    assert evicted(new, "2026-01-01T00:00:09Z")["reason"] == "RollingOut"
    assert evicted(new, "2026-01-01T00:00:11Z")["reason"] == "RolloutStuck"
    assert "Evicted" in condition(world, "Ready")["message"]


@pytest.mark.parametrize("where", ["template", "pods"])
def test_what_a_webhook_makes_of_our_labels_is_no_other_template(where: str) -> None:
    """As a mesh writes its own port for metrics into each pod, or a policy into the Deployment."""
    world = scenes.scene(changed(SERVING, pods={"annotations": {"prometheus.io/port": "8000"}}))
    settle(world, training("one"))
    if where == "template":
        template = world.objects["Deployment", "chat-serving"]["spec"]["template"]
        template["metadata"]["annotations"]["prometheus.io/port"] = "15020"
    run_pods(world)
    world.objects["Pod", "chat-serving-0"]["metadata"]["annotations"]["prometheus.io/port"] = "15020"
    settle(world, training("one"))
    assert (world.owner["status"]["phase"], world.owner["status"]["updatedReplicas"]) == ("Ready", 1)
    world.owner["spec"] = changed(SERVING, pods={"annotations": {"prometheus.io/port": "9000"}})
    settle(world, training("one"))
    assert world.owner["status"]["updatedReplicas"] == 0, "another value of ours is another template"


def test_an_evicted_pod_is_not_counted() -> None:
    world = scenes.scene()
    settle(world, training("one"))
    run_pods(world)
    gone = copy.deepcopy(world.objects["Pod", "chat-serving-0"])
    gone["metadata"] |= {"name": "evicted", "uid": "evicted"}
    gone["status"] = {"phase": "Failed", "reason": "Evicted"}
    world.objects["Pod", "evicted"] = gone
    settle(world, training("one"))
    assert (world.owner["status"]["phase"], world.owner["status"]["replicas"]) == ("Ready", 1)
