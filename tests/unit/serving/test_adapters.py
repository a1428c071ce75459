from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_operator.kube.cache import Cache
from llm_operator.kube.plan import Manifest, Plan
from llm_operator.serving.reconcile import reconcile
from llm_operator.serving.room import ServingRoom
from llm_operator.settings import Settings
from tests.specs import LEGAL, Spec, adapters, changed
from tests.unit.serving import scenes
from tests.unit.serving.scenes import condition, run_pods, settle, training, with_adapter
from tests.unit.world import START, World, check_golden, custom_resource

GOLDEN = Path(__file__).parent / "golden"
CLAIM = {"name": "law", "uri": "pvc://shelf.v1/law,2=new", "rank": 65}
WHOLE = changed(adapters(LEGAL), model__training__stage="chat")


def serving(spec: Spec = WHOLE) -> World:
    return scenes.scene(spec)


def arguments(plan: Plan) -> list[str]:
    found: list[str] = deployment(plan)["containers"][0]["args"]
    return found


def deployment(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = next(m for m in plan.apply if m["kind"] == "Deployment")["spec"]["template"]["spec"]
    return found


def status(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.owner["status"]["adapters"][0]
    return found


def test_an_adapter_beside_its_base() -> None:
    check_golden(GOLDEN / "adapter.yaml", scenes.step(serving(), with_adapter("law")))


def test_an_adapter_joins_when_it_is_there() -> None:
    """The base answers meanwhile, and the pods say what they have loaded."""
    world = serving()
    settle(world, with_adapter())
    run_pods(world)
    settle(world, with_adapter())
    assert world.owner["status"]["phase"] == "Ready"
    assert (status(world)["state"], status(world)["reason"]) == ("Waiting", "TrainingNotFinished")
    assert condition(world, "AdaptersAvailable")["status"] == "False"
    plan = scenes.step(world, with_adapter("law"))
    assert [child["kind"] for child in plan.apply] == ["Deployment"]
    assert "--max-lora-rank=16" in arguments(plan), "the next that vLLM takes above 12"
    assert status(world)["state"] == "Starting"
    run_pods(world)
    settle(world, with_adapter("law"))
    told = {"uri": "pvc://models/run/legal-law", "digest": "sha256:law", "step": 7, "state": "Serving"}
    assert status(world).items() >= told.items()
    plan = scenes.step(world, with_adapter("newer"))
    assert [child["kind"] for child in plan.apply] == ["Deployment"], "a new result is a new rollout"
    assert status(world)["digest"] == "sha256:law", "the old pods still answer"


def test_adapters_of_other_claims_and_ranks() -> None:
    world = serving(changed(WHOLE, adapters__1=CLAIM))
    seen = scenes.observed(world, with_adapter("law"), claims=("models", "shelf.v1"))
    plan = reconcile(seen, START)
    given = arguments(plan)
    modules = [json.loads(module) for module in given[given.index("--lora-modules") + 1 :][:2]]
    assert modules == [
        {"name": "legal", "path": "/volumes/models/run/legal-law"},
        {"name": "law", "path": "/volumes/shelf.v1/law,2=new"},
    ]
    assert {"--enable-lora", "--max-loras=2", "--max-lora-rank=128"} <= set(given)
    mounts = deployment(plan)["containers"][0]["volumeMounts"]
    assert {"name": "adapters-0", "mountPath": "/volumes/shelf.v1", "readOnly": True} in mounts
    assert len({mount["mountPath"] for mount in mounts}) == len(mounts), "a claim is mounted once"
    scenes.step(world, with_adapter("law"))
    assert condition(world, "AdaptersAvailable")["reason"] == "PersistentVolumeClaimNotFound"


def test_an_adapter_that_goes_on_with_another_holds_both() -> None:
    """The sum of the ranks is what vLLM needs room for."""
    made = with_adapter("law")
    stages = made["spec"]["stages"]
    before = {**stages[-1], "name": "before", "lora": {"rank": 30}}
    for start in (None, {"stage": "before"}):
        after = {**stages[-1], **({"model": start} if start else {})}
        if start is None:
            after.pop("model", None)
        made["spec"]["stages"] = [*stages[:-1], before, after]
        assert "--max-lora-rank=64" in arguments(scenes.step(serving(), made)), "30 and 12"
    made["spec"]["stages"] = [*stages[:-1], {**before, "lora": {"rank": 30, "merge": True}}, after]
    assert "--max-lora-rank=16" in arguments(scenes.step(serving(), made)), "a merged one is no adapter any more"


def chat_only() -> Manifest:
    """A stage legal that trains the whole model."""
    made = with_adapter("law")
    del made["spec"]["stages"][-1]["lora"]
    return made


def reward_model() -> Manifest:
    made = with_adapter("law")
    made["spec"]["stages"][-1]["rewardModel"] = made["spec"]["stages"][-1].pop("sft")
    return made


@pytest.mark.parametrize(
    ("source", "state", "reason", "says"),
    [
        (training("one"), "Refused", "StageNotFound", "its stages are base, chat"),
        (with_adapter(), "Waiting", "TrainingNotFinished", "has no result yet"),
        (with_adapter("law", base="two"), "Refused", "BaseDiffers", "adapts pvc://models/run/two (sha256:two) and not"),
        (chat_only(), "Refused", "NotAnAdapter", "name a stage with lora"),
        (with_adapter("law", merge=True), "Refused", "NotAnAdapter", "name the stage in spec.model"),
        (with_adapter(dora=True), "Refused", "AdapterNotSupported", "set lora.merge: true"),
        (
            with_adapter(rank=513),
            "Refused",
            "AdapterNotSupported",
            "of rank 513, and vLLM loads at most 512",
        ),
        (reward_model(), "Refused", "AdapterNotSupported", "adapts a reward model"),
    ],
)
def test_the_base_is_served_without_it(source: Manifest, state: str, reason: str, says: str) -> None:
    world = serving()
    plan = scenes.step(world, source)
    assert "--enable-lora" not in arguments(plan)
    assert (status(world)["state"], status(world)["reason"]) == (state, reason)
    assert says in status(world)["message"]
    assert condition(world, "AdaptersAvailable")["reason"] == reason
    assert condition(world, "ModelAvailable")["status"] == "True"


def test_another_base_is_named_by_its_stage() -> None:
    world = serving(changed(WHOLE, model={"uri": "pvc://models/other"}))
    scenes.step(world, with_adapter("law"))
    assert "name stage chat of LLMTraining bilingual in spec.model" in status(world)["message"]


def test_a_copy_of_the_base_by_uri_has_no_digest_to_compare() -> None:
    world = serving(changed(WHOLE, model={"uri": "pvc://models/run/one/"}))
    assert "--enable-lora" in arguments(scenes.step(world, with_adapter("law")))


def test_a_loaded_adapter_stays_without_its_training() -> None:
    world = serving(changed(WHOLE, model={"uri": "pvc://models/run/one"}))
    settle(world, with_adapter("law"))
    run_pods(world)
    settle(world, with_adapter("law"))
    assert not scenes.step(world, None).apply
    assert (status(world)["state"], status(world)["reason"]) == ("Waiting", "TrainingNotFound")
    assert status(world)["digest"] == "sha256:law", "the pods still answer under its name"
    world.owner["spec"] = changed(WHOLE, model={"uri": "pvc://models/run/two"})
    assert "--enable-lora" not in arguments(scenes.step(world, None)), "but not on another base"


@pytest.mark.parametrize("lora", [{"experts": True}, {"dora": True}, {"merge": True}])
def test_an_adapter_that_is_refused_later_goes(lora: dict[str, Any]) -> None:
    """What vLLM has loaded of it answers wrongly, under a name whose state says Refused."""
    world = serving()
    settle(world, with_adapter("law"))
    run_pods(world)
    settle(world, with_adapter("law"))
    assert "--enable-lora" not in arguments(scenes.step(world, with_adapter("law", **lora)))
    assert status(world)["state"] == "Refused"


def test_an_adapter_that_is_no_longer_wanted_goes() -> None:
    world = serving()
    settle(world, with_adapter("law"))
    world.owner["spec"] = changed(WHOLE, adapters=[])
    assert "--enable-lora" not in arguments(scenes.step(world, with_adapter("law")))
    assert {kind["type"] for kind in world.owner["status"]["conditions"]} == {"ModelAvailable", "Progressing", "Ready"}


def test_a_training_wakes_the_servings_that_load_its_adapters() -> None:
    cache = Cache()
    for version, (name, source) in enumerate((("chat", "bilingual"), ("code", "polyglot"))):
        spec = changed(adapters(LEGAL), model={"uri": "pvc://models/x"}, adapters__0__training__name=source)
        made = custom_resource("LLMServing", name, spec)
        made["metadata"] |= {"uid": name, "resourceVersion": str(version)}
        cache.put("LLMServing", made)
    room = ServingRoom(cache, None, Settings())  # type: ignore[arg-type]
    assert [key.name for key in room.wakes("LLMTraining", training())] == ["chat"]
