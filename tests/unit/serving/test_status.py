"""The cause that the status shows, of pods that are told of in several ways."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_operator.serving.manifests import Image
from tests.specs import LEGAL, SERVING, adapters, changed
from tests.unit.serving import scenes
from tests.unit.serving.scenes import condition, run_pods, settle, training, with_adapter
from tests.unit.world import World

WHOLE = changed(adapters(LEGAL), model__training__stage="chat")


def ended(code: int, message: str, reason: str = "Error") -> dict[str, Any]:
    return {"lastState": {"terminated": {"exitCode": code, "reason": reason, "message": message}}}


def word(reason: str, message: str, code: int, **more: str) -> str:
    return json.dumps({"reason": reason, "message": message, "exitCode": code, **more})


@pytest.fixture
def world() -> World:
    world = scenes.scene()
    settle(world, training("one"))
    return world


@pytest.mark.parametrize(
    ("message", "reason", "says"),
    [
        (word("Error", "ValueError: 12 heads", 1), "NotReady", "exit code 1: ValueError: 12 heads"),
        (word("OutOfMemory", "the weights take 30 GiB", 1), "OutOfMemory", "the weights take 30 GiB"),
        (word("Hang", "no step for 300 s", 79), "Hang", "no step for 300 s"),
        (word("ConfigurationError", "spec.model: no folder", 78), "ConfigurationError", "spec.model: no folder"),
        (word("SomethingNew", "of a newer launcher", 1), "NotReady", "of a newer launcher"),
        ("some log\nthe last line\n", "NotReady", "exit code 1: the last line"),
        ("[1, 2]", "NotReady", "exit code 1: [1, 2]"),
        ("", "NotReady", "kubectl logs --previous"),
    ],
)
def test_the_last_word_of_a_container(message: str, reason: str, says: str, world: World) -> None:
    run_pods(world, ready=False, container=ended(1, message))
    scenes.step(world, training("one"))
    assert condition(world, "Ready")["reason"] == reason
    assert says in condition(world, "Ready")["message"]


@pytest.mark.parametrize("position", ["first", "last"])
@pytest.mark.parametrize("kind", ["Evicted", "UnexpectedAdmissionError", "OutOfcpu"])
def test_a_rejected_pod_never_hides_the_living_ones_cause(kind: str, position: str, world: World) -> None:
    """The kubelet leaves it as Failed, and the ReplicaSet makes another."""
    run_pods(world, ready=False, container=ended(1, word("Error", "the true cause", 1)))
    (at,) = [at for at in world.objects if at[0] == "Pod"]
    living = world.objects.pop(at)
    status = {"phase": "Failed", "reason": kind, "message": "the kubelet's word"}
    rejected = {**living, "metadata": {**living["metadata"], "name": "rejected"}, "status": status}
    both = [("rejected", rejected), ("living", living)]
    for name, pod in both if position == "first" else both[::-1]:
        world.objects["Pod", name] = pod
    scenes.step(world, training("one"))
    assert "the true cause" in condition(world, "Ready")["message"]
    del world.objects["Pod", "living"]
    scenes.step(world, training("one"))
    assert condition(world, "Ready")["reason"] == ("Evicted" if kind == "Evicted" else "NotReady")
    assert f"{kind}: the kubelet's word" in condition(world, "Ready")["message"]


def test_the_newest_models_pod_tells_before_an_older_ones(world: World) -> None:
    run_pods(world, ready=False, container=ended(1, word("Error", "of the old", 1)))
    (at,) = [at for at in world.objects if at[0] == "Pod"]
    old = world.objects[at]
    settle(world, training("two"))
    run_pods(world, ready=False, container=ended(1, word("Error", "of the new", 1)))
    world.objects["Pod", "a-old"] = {
        **old,
        "metadata": {**old["metadata"], "creationTimestamp": "2030-01-01T00:00:00Z"},
    }
    scenes.step(world, training("two"))
    assert "of the new" in condition(world, "Ready")["message"]


REFUSAL = word("AdapterNotSupported", "beside a GPT2", 78, withoutAdapters="beside a GPT2LMHeadModel")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (78, REFUSAL),
        (1, word("OutOfMemory", "CUDA out of memory", 1, withoutAdapters="beside a GPT2LMHeadModel")),
        (137, REFUSAL),
        (0, REFUSAL),
    ],
    ids=["the one that says so", "a later end", "killed without a word", "asked to leave"],
)
def test_adapters_that_the_launcher_serves_without(code: int, message: str) -> None:
    """The operator can't read a claim; the launcher can, and its last end says what the pod serves without."""
    spec = changed(WHOLE, model={"uri": "pvc://models/run/one"})
    world = scenes.scene(spec)
    settle(world, with_adapter("law"))
    run_pods(world)
    settle(world, with_adapter("law"))
    assert world.owner["status"]["adapters"][0]["state"] == "Serving"
    run_pods(world, container=ended(code, message))
    scenes.step(world, with_adapter("law"))
    (told,) = world.owner["status"]["adapters"]
    assert (told["state"], told["reason"], told.get("uri")) == ("Refused", "AdapterNotSupported", None)
    assert "GPT2LMHeadModel" in told["message"]
    assert condition(world, "AdaptersAvailable")["status"] == "False"
    assert condition(world, "Ready")["status"] == "True", "the base is served"


@pytest.mark.parametrize(
    ("code", "message", "reason", "says"),
    [
        (78, REFUSAL, "RollingOut", None),
        (137, REFUSAL, "RolloutStuck", "exit code 137: Error; kubectl logs --previous"),
        (1, word("Error", "ValueError: bad", 1, withoutAdapters="beside"), "RolloutStuck", "exit code 1: ValueError"),
    ],
    ids=["the one that says so", "killed without a word", "a later end"],
)
def test_the_end_that_only_refuses_adapters_is_no_fault(code: int, message: str, reason: str, says: str | None) -> None:
    world = scenes.scene(changed(WHOLE, model={"uri": "pvc://models/run/one"}))
    settle(world, with_adapter("law"))
    run_pods(world, ready=False, container=ended(code, message))
    scenes.step(world, with_adapter("law"))
    assert condition(world, "Progressing")["reason"] == reason
    assert (says or "0 of 1 pods answer") in condition(world, "Ready")["message"]


@pytest.mark.parametrize("image", ["vllm/vllm-openai:v0.31.0", "vllm:1"])
def test_another_image_than_the_trainers_is_taken_for_vllms_own(image: str) -> None:
    world = scenes.scene(changed(SERVING, image=image))
    plan = scenes.step(world, training("one"))
    (container,) = next(m for m in plan.apply if m["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"]
    has_launcher = Image.of(image, "vllm:1").has_launcher
    assert has_launcher == (image == "vllm:1")
    assert container["command"][:2] == (["python", "-m"] if has_launcher else ["vllm", "serve"])
    assert ("exec" in container["startupProbe"]) == (not has_launcher)
    assert ("--host=0.0.0.0" in container["args"]) == (not has_launcher)
    assert ("VLLM_CPU_KVCACHE_SPACE" in {one["name"] for one in container["env"]}) == (not has_launcher)
