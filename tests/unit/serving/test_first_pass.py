"""The first pass over a serving: what its Deployment waits for."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace
from pathlib import Path

import pytest

from llm_operator.api.serving import ConfigMapKey
from llm_operator.kube.cache import Cache
from llm_operator.kube.client import ApiError
from llm_operator.kube.plan import Key, Manifest, Plan
from llm_operator.serving.chat_template import Place as Source
from llm_operator.serving.chat_template import Word, mark, read, unread
from llm_operator.serving.reconcile import reconcile
from llm_operator.serving.room import ServingRoom
from llm_operator.settings import Settings
from tests.specs import SERVING, changed
from tests.unit.serving import scenes
from tests.unit.serving.scenes import condition, run_pods, settle, training
from tests.unit.world import START, World, check_golden, custom_resource

GOLDEN = Path(__file__).parent / "golden"
TEMPLATED = changed(SERVING, chatTemplate={"configMap": {"name": "templates", "key": "plain.jinja"}})


def deployment(plan: Plan) -> Manifest:
    found: Manifest = next(child for child in plan.apply if child["kind"] == "Deployment")
    return found


def test_the_service_comes_first() -> None:
    """It tells of the cluster's IP families, by which the server listens."""
    spec = changed(SERVING, image="vllm:own")  # the launcher sees the addresses of its pod
    world = World(custom_resource("LLMServing", "chat", copy.deepcopy(spec)))
    check_golden(GOLDEN / "service.yaml", scenes.step(world, training("one")))
    assert "url" not in world.owner["status"]
    assert [child["kind"] for child in scenes.step(world, training("one")).apply] == ["Deployment"]
    assert world.owner["status"]["url"] == "http://chat-serving.team.svc/v1"


def test_with_the_launcher_nothing_waits() -> None:
    world = World(custom_resource("LLMServing", "chat", copy.deepcopy(SERVING)))
    made = scenes.step(world, training("one")).apply
    assert [child["kind"] for child in made] == ["Service", "PodDisruptionBudget", "Deployment"]


@pytest.mark.parametrize(
    ("families", "host"), [(["IPv4"], "0.0.0.0"), (["IPv4", "IPv6"], "::"), (["IPv6"], "::")]
)  # fmt: skip
def test_it_listens_on_the_families_of_its_service(families: list[str], host: str) -> None:
    world = scenes.scene(changed(SERVING, image="vllm:own"))  # without the launcher, which sees its pod's addresses
    world.objects["Service", "chat-serving"]["spec"]["ipFamilies"] = families
    args = deployment(scenes.step(world, training("one")))["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"--host={host}" in args


def seen(world: World, word: Word) -> Plan:
    observed = scenes.observed(world, training("one"))
    plan = reconcile(type(observed)(**{**vars(observed), "chat_template": word}), START)
    world.execute(plan)
    return plan


def test_a_chat_template_of_a_config_map() -> None:
    world = scenes.scene(TEMPLATED)
    assert "Deployment" not in [child["kind"] for child in seen(world, Word()).apply], "it was not asked for yet"
    pods = deployment(seen(world, Word(digest="one")))["spec"]["template"]
    assert pods["metadata"]["annotations"]["llm-operator.io/chat-template"] == "templates/plain.jinja@one"
    container = pods["spec"]["containers"][0]
    assert "--chat-template=/etc/llm-operator/chat-template/plain.jinja" in container["args"]
    mount = {"name": "chat-template", "mountPath": "/etc/llm-operator/chat-template", "readOnly": True}
    assert mount in container["volumeMounts"]
    items = [{"key": "plain.jinja", "path": "plain.jinja"}]
    assert {"name": "chat-template", "configMap": {"name": "templates", "items": items}} in pods["spec"]["volumes"]
    assert not seen(world, Word(digest="one")).apply
    assert not seen(world, Word()).apply, "a new operator has not asked yet"
    assert not seen(world, Word(problem="gone")).apply, "what is mounted stays"
    assert (condition(world, "Progressing")["reason"], condition(world, "Progressing")["message"]) == (
        "RolloutStuck",
        "gone",
    )
    assert deployment(seen(world, Word(digest="two"))), "another text is a rollout"


def test_a_config_map_that_is_not_there() -> None:
    source, spec = Source("team", "templates", "a"), TEMPLATED["chatTemplate"]
    there = {"metadata": {"resourceVersion": "1"}}
    assert "ConfigMap templates does not exist; create it" in read(source, []).problem
    assert "has no key 'a'; its keys are b, c" in read(source, [{**there, "data": {"c": "", "b": ""}}]).problem
    texts = [read(source, [{**there, "data": {"a": text}}]).digest for text in ("x", "y", "x")]
    assert texts[0] == texts[2] != texts[1]
    key = ConfigMapKey.model_validate(spec["configMap"])
    assert mark(key, Word(problem="gone"), "") is None, "no pod would start"
    assert mark(key, Word(), "another/plain.jinja@x") is None


def test_pods_wait_for_their_config_map_and_say_so() -> None:
    world = scenes.scene(TEMPLATED)
    assert "Deployment" not in [child["kind"] for child in seen(world, Word(problem="there is none")).apply]
    assert (condition(world, "Ready")["reason"], condition(world, "Ready")["message"]) == ("NotReady", "there is none")
    assert deployment(seen(world, Word(digest="one")))


def test_what_serves_does_not_take_a_config_map_that_is_not_there() -> None:
    """Whatever the strategy: its pods would never start."""
    world = scenes.scene()
    settle(world, training("one"))
    run_pods(world)
    settle(world, training("one"))
    world.owner["spec"] = changed(TEMPLATED, strategy={"type": "Recreate"}, replicas=2)
    made = deployment(seen(world, Word(problem="there is none")))
    assert made["spec"]["replicas"] == 2
    assert made["spec"]["strategy"]["type"] == "RollingUpdate"
    assert "chat-template" not in str(made)
    assert (condition(world, "Progressing")["reason"], condition(world, "Progressing")["message"]) == (
        "RolloutStuck",
        "there is none",
    )
    run_pods(world)
    assert not seen(world, Word(problem="there is none")).apply
    assert (world.owner["status"]["phase"], world.owner["status"]["readyReplicas"]) == ("RollingOut", 2)
    assert "2 of 2 pods answer; there is none" in condition(world, "Ready")["message"]
    seen(world, Word())
    assert (condition(world, "Progressing")["reason"], world.owner["status"]["phase"]) == ("RollingOut", "RollingOut")
    assert deployment(seen(world, Word(digest="one")))["spec"]["strategy"] == {"type": "Recreate"}


def test_a_new_operator_tells_nothing_of_a_config_map_that_it_has_not_read() -> None:
    world = scenes.scene(TEMPLATED)
    seen(world, Word(digest="one"))
    run_pods(world)
    seen(world, Word(problem="gone"))
    before = condition(world, "Progressing")
    assert before["reason"] == "RolloutStuck"
    assert seen(world, Word()).empty
    assert condition(world, "Progressing") == before


def test_a_config_map_that_may_not_be_read() -> None:
    source, denied, silent = Source("team", "templates", "a"), ApiError(403, "forbidden"), ApiError(0, "no answer")
    assert "ConfigMap templates can't be read" in unread(source, Word(), denied).problem
    assert "forbidden" in unread(source, Word(), denied).problem
    assert unread(source, Word(), silent) == Word()
    assert unread(source, Word(digest="one"), denied) == Word(digest="one"), "what was told stands"


def test_a_serving_that_is_gone_is_not_asked_for() -> None:
    asked: list[str] = []
    cache, key = Cache(), Key("LLMServing", "team", "chat")
    for version, name in enumerate(("chat", "other")):
        made = custom_resource("LLMServing", name, changed(TEMPLATED, chatTemplate__configMap__name=f"of-{name}"))
        made["metadata"] |= {"uid": name, "resourceVersion": str(version)}
        cache.put("LLMServing", made)

    class Asked:
        async def get(self, path: str, query: dict[str, str], accept: str) -> Manifest:
            del path, accept
            asked.append(query["fieldSelector"])
            return {"items": []}

    async def until_the_other_is_known() -> None:
        room, news = ServingRoom(cache, Asked(), Settings()), asyncio.Event()  # type: ignore[arg-type]
        room.observe(key)  # the first in the queue
        room.observe(replace(key, name="other"))
        room.forget(key)
        running = asyncio.create_task(room.run(lambda _: news.set()))
        await news.wait()
        running.cancel()

    asyncio.run(until_the_other_is_known())
    assert asked == ["metadata.name=of-other"]


def test_what_the_kubelet_would_expand_is_written_as_it_is_meant() -> None:
    """In a command and its arguments; a probe is told neither folder nor adapters."""
    spec = changed(
        SERVING, model={"uri": "pvc://models/$(HOME)/x"}, adapters=[{"name": "a", "uri": "pvc://models/$(A)"}]
    )
    world = scenes.scene(changed(spec, image="vllm:own"))
    [container] = deployment(scenes.step(world, None))["spec"]["template"]["spec"]["containers"]
    assert container["command"][-1] == "/volumes/models/$$(HOME)/x"
    assert '"/volumes/models/$$(A)"' in container["args"][container["args"].index("--lora-modules") + 1]
    assert world.owner["status"]["adapters"][0]["state"] == "Starting"


def test_a_chat_template_as_text() -> None:
    world = scenes.scene(changed(SERVING, chatTemplate={"text": "{{ $(HOME) }}"}))
    args = deployment(scenes.step(world, training("one")))["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--chat-template={{ $$(HOME) }}" in args, "as Kubernetes writes a $ that is none of its own"


def test_a_cache_of_a_claim() -> None:
    world = scenes.scene(changed(SERVING, cache={"persistentVolumeClaim": {"claimName": "kernels"}}))
    scenes.step(world, training("one"))
    assert condition(world, "ModelAvailable")["reason"] == "PersistentVolumeClaimNotFound"
    assert "kernels of spec.cache does not exist" in condition(world, "ModelAvailable")["message"]
    plan = reconcile(scenes.observed(world, training("one"), claims=("models", "kernels")), START)
    pods = deployment(plan)["spec"]["template"]["spec"]
    assert {"name": "cache", "persistentVolumeClaim": {"claimName": "kernels"}} in pods["volumes"]
    env = {one["name"]: one["value"] for one in pods["containers"][0]["env"]}
    assert env["VLLM_CACHE_ROOT"] == "/var/cache/llm-operator/vllm"


def test_names() -> None:
    world = scenes.scene(changed(SERVING, servedModelName="Acme/Base-8B", servedModelAliases=["chat-v1", "chat-v2"]))
    args = deployment(scenes.step(world, training("one")))["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[:4] == ["--served-model-name", "Acme/Base-8B", "chat-v1", "chat-v2"]


def test_it_follows_its_spec_without_its_training() -> None:
    """On the model that it serves already, whether its Deployment is there or not."""
    world = scenes.scene(changed(SERVING, replicas=2))
    settle(world, training("one"))
    run_pods(world)
    settle(world, training("one"))
    world.owner["spec"] = changed(SERVING, replicas=3, maxModelLength=256, image="vllm:2")
    made = deployment(scenes.step(world, None))
    assert made["spec"]["replicas"] == 3
    container = made["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], container["command"][-1]) == ("vllm:2", "/volumes/models/run/one")
    assert "--max-model-len=256" in container["args"]
    assert (
        "meanwhile 2 of the pods serve pvc://models/run/one of step 100"
        in condition(world, "ModelAvailable")["message"]
    )
    del world.objects["Deployment", "chat-serving"]
    assert deployment(scenes.step(world, None))["spec"]["template"] == made["spec"]["template"]
    world.owner["spec"] = changed(SERVING, replicas=0)
    assert deployment(scenes.step(world, None))["spec"]["replicas"] == 0
