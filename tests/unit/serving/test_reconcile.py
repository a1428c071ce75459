from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_operator.api.conditions import timestamp
from llm_operator.kube.drift import FIELDS
from llm_operator.kube.plan import Manifest, Plan
from llm_operator.serving.reconcile import apply_refused, reconcile
from tests.specs import LEGAL, SERVING, adapters, changed
from tests.unit.serving import scenes
from tests.unit.serving.scenes import condition, run_pods, settle, training, with_adapter
from tests.unit.world import NETWORK, START, World, check_golden

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def world() -> World:
    return scenes.scene()


def test_first_result(world: World) -> None:
    check_golden(GOLDEN / "first_result.yaml", scenes.step(world, training("one")))


@pytest.mark.parametrize(
    ("source", "reason", "says"),
    [
        (None, "TrainingNotFound", "LLMTraining bilingual does not exist"),
        (training(), "TrainingNotFinished", "the training is Running"),
        (training(phase="Failed"), "TrainingFailed", "the training failed"),
    ],
)
def test_without_a_model_nothing_is_made(world: World, source: Manifest | None, reason: str, says: str) -> None:
    plan = scenes.step(world, source)
    assert not plan.apply
    assert condition(world, "ModelAvailable")["reason"] == reason
    assert says in condition(world, "ModelAvailable")["message"]
    assert world.owner["status"]["phase"] == "Waiting"


def test_a_stage_that_is_not_there(world: World) -> None:
    world.owner["spec"] = changed(SERVING, model__training__stage="rlhf")
    scenes.step(world, training("one"))
    assert condition(world, "ModelAvailable")["reason"] == "StageNotFound"
    assert "base, chat" in condition(world, "ModelAvailable")["message"]


def test_a_stage_that_writes_no_text(world: World) -> None:
    source = training("one")
    source["spec"]["stages"].append({"name": "taste", "rewardModel": {}})
    scenes.step(world, source)
    assert condition(world, "ModelAvailable")["reason"] == "ModelFound", "the last stage that writes is the default"
    world.owner["spec"] = changed(SERVING, model__training__stage="taste")
    scenes.step(world, source)
    assert condition(world, "ModelAvailable")["reason"] == "NotALanguageModel"
    assert "name one of base, chat" in condition(world, "ModelAvailable")["message"]


def test_an_adapter_without_its_base_is_no_model(world: World) -> None:
    source = with_adapter("one")
    scenes.step(world, source)
    assert "stage chat" in condition(world, "ModelAvailable")["message"], "the last stage with a whole model"
    world.owner["spec"] = changed(SERVING, model__training__stage="legal")
    assert not scenes.step(world, source).apply
    said = condition(world, "ModelAvailable")["message"]
    assert "name the base in spec.model (its stage, of base, chat) and legal under spec.adapters" in said
    source["spec"]["stages"][-1]["lora"]["merge"] = True
    settle(world, source)
    assert condition(world, "ModelAvailable")["reason"] == "ModelFound"


@pytest.mark.parametrize(
    ("architecture", "says"),
    [
        ({"family": "mamba"}, "mamba: vLLM has no kernel"),
        ({"family": "jamba"}, "jamba: vLLM has no kernel"),
        ({"family": "deepseek_v3"}, None),
        ({"family": "mamba2"}, "n_groups 8 of a mamba2"),
        ({"family": "mamba2", "config": {"n_groups": 1}}, None),
        ({"family": "mixtral"}, None),
        (
            {"family": "phi", "config": {"num_attention_heads": 4, "num_key_value_heads": 2}},
            "key-value heads than heads, 2 of 4",
        ),
        ({"family": "phi", "config": {"num_attention_heads": 4, "num_key_value_heads": 4}}, None),
        ({"family": "phi"}, None),
        ({"family": "qwen3_next"}, "set spec.dataType: bfloat16"),
    ],
)
def test_a_family_that_vllm_would_answer_wrongly_for(world: World, architecture: Manifest, says: str | None) -> None:
    source = training("one")
    source["spec"]["model"] = {"architecture": architecture}
    made = scenes.step(world, source)
    assert bool(made.apply) == (says is None)
    assert (says or "step 100") in condition(world, "ModelAvailable")["message"]
    world.owner["spec"] = changed(SERVING, resources={"limits": {"nvidia.com/gpu": 1}})
    scenes.step(world, source)
    on_gpus = condition(world, "ModelAvailable")["reason"]
    assert on_gpus == ("FamilyNotServed" if says and says.startswith(("n_groups", "key-value")) else "ModelFound")


def test_a_claim_that_is_not_there(world: World) -> None:
    world.owner["spec"] = {"model": {"uri": "pvc://elsewhere/model"}}
    scenes.step(world, None)
    assert condition(world, "ModelAvailable")["reason"] == "PersistentVolumeClaimNotFound"


def test_what_the_api_server_refuses_is_said_once(world: World) -> None:
    refusal = apply_refused(scenes.observed(world, training("one")), "Deployment chat-serving: exceeded quota", START)
    assert (refusal.apply, refusal.delete) == ((), ())
    assert [(event.reason, event.message) for event in refusal.events if event.type == "Warning"] == [
        ("ApplyRefused", "Deployment chat-serving: exceeded quota")
    ]
    world.execute(refusal)
    assert world.owner["status"]["phase"] == "Starting"
    again = apply_refused(scenes.observed(world, training("one")), "Deployment chat-serving: exceeded quota", START)
    assert again.empty


def test_pods_that_a_quota_refuses(world: World) -> None:
    settle(world, training("one"))
    said = 'pods "chat-serving-5cd5-hnb9r" is forbidden: exceeded quota: team'
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": said}
    world.objects["Deployment", "chat-serving"]["status"] = {"conditions": [failure]}
    scenes.step(world, training("one"))
    assert condition(world, "Ready")["reason"] == "FailedCreate"
    assert condition(world, "Ready")["message"] == "pods is forbidden: exceeded quota: team"


def test_ready_and_what_it_serves(world: World) -> None:
    settle(world, training("one"))
    assert world.owner["status"]["phase"] == "Starting"
    run_pods(world)
    settle(world, training("one"))
    status = world.owner["status"]
    assert (status["phase"], status["readyReplicas"]) == ("Ready", 1)
    assert status["model"] == {"uri": "pvc://models/run/one", "digest": "sha256:one", "step": 100}
    assert status["url"] == "http://chat-serving.team.svc/v1"


def test_a_new_result_changes_the_deployment_alone(world: World) -> None:
    settle(world, training("one"))
    run_pods(world)
    settle(world, training("one"))
    plan = scenes.step(world, training("two"))
    assert [child["kind"] for child in plan.apply] == ["Deployment"]
    template = plan.apply[0]["spec"]["template"]
    assert template["spec"]["containers"][0]["command"][-1] == "/volumes/models/run/two"
    assert world.owner["status"]["model"]["digest"] == "sha256:one", "the old pods still serve the old model"


def test_what_serves_goes_on_without_its_training(world: World) -> None:
    settle(world, training("one"))
    run_pods(world)
    settle(world, training("one"))
    plan = scenes.step(world, None)
    assert not plan.apply
    assert not plan.delete
    assert condition(world, "Ready")["status"] == "True"


def test_scaled_to_zero(world: World) -> None:
    settle(world, training("one"))
    world.owner["spec"] = changed(SERVING, replicas=0)
    settle(world, training("one"))
    assert world.owner["status"]["phase"] == "ScaledToZero"


def test_another_writer_of_replicas_is_overruled(world: World) -> None:
    settle(world, training("one"))
    scenes.taken(world, "Deployment", "replicas", "kube-controller-manager", "scale")
    assert not scenes.step(world, training("one"), START + 1).apply, "an autoscaler is not fought at every pass"
    plan = scenes.step(world, training("one"), START + 11)
    assert [child["spec"]["replicas"] for child in plan.apply] == [1]
    [event] = plan.events
    assert (event.type, event.reason) == ("Warning", "DriftMended")
    assert "Deployment chat-serving: spec.replicas (kube-controller-manager (scale))" in event.message
    assert "an autoscaler must target LLMServing chat too" in event.message


def test_another_writer_of_replicas_is_no_less_told_while_the_pods_are_kept(world: World) -> None:
    """As while the spec is refused, or while the Service is made anew."""
    settle(world, training("one"))
    world.owner["spec"] = changed(SERVING, cache={"persistentVolumeClaim": {"claimName": "missing"}})
    settle(world, training("one"))
    for told in ("first", "again"):
        scenes.taken(world, "Deployment", "replicas", "kube-controller-manager", "scale")
        world.objects["Deployment", "chat-serving"]["spec"]["replicas"] = 5
        assert not scenes.step(world, training("one"), START + 1).apply, told
        plan = scenes.step(world, training("one"), START + 11)
        assert [child["spec"]["replicas"] for child in plan.apply] == [1]
        assert "Deployment chat-serving: spec.replicas (kube-controller-manager (scale))" in plan.events[0].message


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget"])
def test_who_takes_away_our_mark_is_not_fought_at_each_pass(world: World, kind: str) -> None:
    settle(world, training("one"))
    applies = 0
    for quarter in range(80):  # 20 s
        child = world.objects[kind, "chat-serving"]
        child["metadata"].pop("annotations", None)
        [ours] = child["metadata"][FIELDS]
        ours["fieldsV1"]["f:metadata"].pop("f:annotations", None)
        now = START + quarter / 4
        plan = scenes.step(world, training("one"), now)
        applies += len(plan.apply)
        if plan.apply:
            assert "metadata.annotations" in plan.events[0].message
            world.objects[kind, "chat-serving"]["metadata"][FIELDS][0]["time"] = timestamp(now)
    assert applies == 1
    world.owner["spec"] = changed(SERVING, replicas=3)
    made = [child["kind"] for child in scenes.step(world, training("one"), START + 30).apply]
    assert "Deployment" in made, "and a change of the spec is applied"


def test_a_training_that_can_not_be_read_stops_nothing_else(world: World) -> None:
    """Somebody has edited its status, or a later version has written it."""
    world.owner["spec"] = adapters(LEGAL)
    settle(world, with_adapter("law"))
    source = with_adapter("law")
    source["status"]["stages"][0]["attempts"] = "none"
    world.owner["spec"] = changed(adapters(LEGAL), replicas=3)
    [made] = scenes.step(world, source).apply
    assert made["spec"]["replicas"] == 3
    for kind in ("ModelAvailable", "AdaptersAvailable"):
        assert condition(world, kind)["reason"] == "TrainingNotFinished"
        assert "LLMTraining bilingual can't be read" in condition(world, kind)["message"]
        assert "stages.0.attempts" in condition(world, kind)["message"]


@pytest.mark.parametrize("clock", [-3600, 3600])
def test_clocks_that_are_apart_keep_no_drift(world: World, clock: int) -> None:
    settle(world, training("one"))
    scenes.taken(world, "Service", "selector", "kubectl-edit")
    assert [child["kind"] for child in scenes.step(world, training("one"), START + clock).apply] == ["Service"]


def test_a_service_without_its_port_is_made_anew(world: World) -> None:
    settle(world, training("one"))
    scenes.taken(world, "Service", "ports", "kubectl-edit")
    plan = scenes.step(world, training("one"), START + 11)
    assert ([child.kind for child in plan.delete], plan.apply) == (["Service"], ())
    assert [child["kind"] for child in scenes.step(world, training("one"), START + 11).apply] == ["Service"]


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget"])
def test_what_somebody_deletes_is_made_again(world: World, kind: str) -> None:
    settle(world, training("one"))
    run_pods(world)
    settle(world, training("one"))
    del world.objects[kind, "chat-serving"]
    assert [child["kind"] for child in scenes.step(world, training("one")).apply] == [kind]
    assert (world.owner["status"].get("url") is None) == (kind == "Service")


def test_with_tls_the_service_is_of_https(world: World) -> None:
    """The address follows the Service that is there."""
    world.owner["spec"] = changed(SERVING, tls={"secretName": "chat-tls"})
    settle(world, training("one"))
    (service,) = world.of("Service")
    assert service["spec"]["ports"] == [{"name": "https", "port": 443, "targetPort": "http"}]
    assert world.owner["status"]["url"] == "https://chat-serving.team.svc/v1"
    pod = world.of("Deployment")[0]["spec"]["template"]["spec"]
    (mount,) = (mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "tls")
    assert mount == {"name": "tls", "mountPath": "/etc/llm-operator/tls", "readOnly": True}
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "tls")
    assert volume["secret"]["secretName"] == "chat-tls"
    assert "--ssl-keyfile=/etc/llm-operator/tls/tls.key" in pod["containers"][0]["args"]
    world.owner["spec"] = SERVING
    settle(world, training("one"))
    assert world.owner["status"]["url"] == "http://chat-serving.team.svc/v1"


def test_a_policy_is_applied_and_set_back(world: World) -> None:
    """Where the operator makes any. Without one nothing is deleted: the operator then has no right to."""
    world.network = NETWORK
    world.owner["spec"] = changed(SERVING, allowedNamespaces=["web"])
    made = scenes.step(world, training("one"))
    policies = [child for child in made.apply if child["kind"] == "NetworkPolicy"]
    check_golden(GOLDEN / "network_policy.yaml", Plan(apply=tuple(policies)))
    settle(world, training("one"))
    scenes.taken(world, "NetworkPolicy", "ingress", "kubectl-edit")
    assert [child["kind"] for child in scenes.step(world, training("one"), START + 11).apply] == ["NetworkPolicy"]
    world.owner["spec"] = changed(SERVING, allowedNamespaces=["*"])
    (everybody,) = scenes.step(world, training("one"), START + 30).apply
    assert everybody["spec"]["ingress"][0] == {"ports": [{"port": 8000, "protocol": "TCP"}]}
    world.network = None
    settle(world, training("one"))
    assert world.of("NetworkPolicy")


def test_a_crash_shows_its_last_line(world: World) -> None:
    settle(world, training("one"))
    ended = {"exitCode": 1, "reason": "Error", "message": "Traceback\nValueError: no such flag --x\n"}
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    run_pods(world, ready=False, container={"state": waiting, "lastState": {"terminated": ended}})
    settle(world, training("one"))
    said = condition(world, "Ready")["message"]
    assert "exit code 1" in said
    assert "ValueError: no such flag --x" in said
    assert "node-a" in said


def test_an_invalid_spec_makes_nothing(world: World) -> None:
    world.owner["spec"] = {"model": {}}
    assert not scenes.step(world, None).apply
    assert world.owner["status"]["phase"] == "Invalid"


SOURCES = st.sampled_from(
    [None, training(), training("one"), training("two"), training(phase="Failed"), with_adapter("law"),
     with_adapter("law", base="two"), with_adapter()]
)  # fmt: skip


PODS = st.sampled_from(["as they were", "ready", "loading", "one without room", "leaving", "all gone"])


def turn(world: World, pods: str) -> None:
    """What the pods of a world come to. One without room is of the newest template, beside those that there were."""
    before = {at: found for at, found in world.objects.items() if at[0] == "Pod"}
    if pods == "as they were" or ("Deployment", "chat-serving") not in world.objects:
        return
    if pods == "leaving":
        for found in before.values():
            found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        return
    run_pods(world, ready=pods == "ready")
    made = {at: world.objects.pop(at) for at in list(world.objects) if at[0] == "Pod"}
    if pods == "one without room":
        told = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
        for _, found in list(made.items())[:1]:
            found["status"] = {"conditions": [told]}
            before["Pod", "new"] = {**found, "metadata": {**found["metadata"], "name": "new", "uid": "new"}}
        made = before
    world.objects.update({} if pods == "all gone" else made)


@settings(max_examples=2 * settings().max_examples)
@given(st.lists(st.tuples(SOURCES, st.integers(0, 3), PODS, st.integers(0, 5)), max_size=8))
def test_it_converges_from_any_crash(happenings: list[tuple[Manifest | None, int, str, int]]) -> None:
    whole, torn, now = scenes.scene(), scenes.scene(), START
    for source, replicas, pods, crash in happenings:
        now += 30
        for world in (whole, torn):
            world.owner["spec"] = changed(adapters(LEGAL), replicas=replicas)
            turn(world, pods)
        torn.execute(reconcile(scenes.observed(torn, source, now=now), now), crash)
        for world in (whole, torn):
            settle(world, source, now)
            assert reconcile(scenes.observed(world, source, now=now), now).empty
        assert (torn.objects, torn.owner) == (whole.objects, whole.owner)
