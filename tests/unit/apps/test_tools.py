"""Tools of an app: documents that lie elsewhere, and what has room in the model's context."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_operator.apps.config_maps import Content, Document
from tests.app_specs import AGENTS, ORDERS, PLAIN
from tests.specs import Spec, changed
from tests.unit.apps.scenes import FAQ, condition, config, end_jobs, run_pods, scene, serving, settle
from tests.unit.world import World

TOOL = {"name": "shop", "openapi": {"url": "https://shop.example.com", "operations": ["getOrder"]}}
SHOP: Spec = changed(PLAIN, tools=[TOOL], agents=[{"name": "clerk", "tools": ["shop"]}])
IN_MAP = changed(SHOP, tools__0__openapi__configMap={"name": "shop", "key": "a.yaml"})
ASKED = Document("shop", "a.yaml", ("getOrder",))

CHOICES = json.dumps({"type": "object", "properties": {"a": {"enum": [f"choice number {n}" for n in range(200)]}}})


def started(spec: Spec, **more: Any) -> World:
    world = scene(spec)
    settle(world, serving(), **more)
    return world


def there(digest: str = "1", problem: str = "") -> dict[str, Content]:
    return {"shop": Content({"a.yaml": digest}, digest, refused={ASKED: problem} if problem else {})}


def test_a_document_of_a_config_map_is_mounted_and_a_change_is_a_rollout() -> None:
    world = started(IN_MAP, sources=there())
    told = config(world)["team"]["tools"][0]["openapi"]
    assert told["path"] == "/etc/llm-operator/tools/0/document"
    pod = world.objects["Deployment", "help-app"]["spec"]["template"]["spec"]
    items = [{"key": "a.yaml", "path": "document"}]
    assert {"name": "tool-0", "configMap": {"name": "shop", "items": items}} in pod["volumes"]
    mounts = {one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    assert "/etc/llm-operator/tools/0" in mounts
    before = config(world)["revision"]
    settle(world, serving(), sources=there("2"))
    assert config(world)["revision"] != before


@pytest.mark.parametrize(
    ("sources", "reason", "says"),
    [
        (there(problem="has no operation 'getOrder'"), "ToolDocumentRefused", "of ConfigMap shop has no operation"),
        ({"shop": Content(problem="ConfigMap shop does not exist")}, "SourceNotFound", "does not exist"),
        ({"shop": Content({}, "1", ("b.yaml",))}, "SourceNotFound", "its keys are b.yaml"),
    ],
)  # fmt: skip
def test_a_document_that_is_wrong_makes_no_pod_and_takes_none_away(sources: Any, reason: str, says: str) -> None:
    world = started(IN_MAP, sources=sources)
    assert ("Deployment", "help-app") not in world.objects
    told = condition(world, "Accepted")
    assert (told.status, told.reason) == ("False", reason)
    assert told.message.startswith("spec.tools[0].openapi: ")
    assert says in told.message
    assert world.owner["status"]["phase"] == "Invalid"
    settle(world, serving(), sources={})  # an operator that starts again, and has not asked yet
    assert condition(world, "Accepted") == told
    settle(world, serving(), sources=there())
    assert condition(world, "Accepted").status == "True"
    run_pods(world)
    settle(world, serving(), sources=there())
    made = config(world)
    settle(world, serving(), sources=sources)
    assert config(world) == made, "what answers goes on"
    assert (condition(world, "Accepted").reason, condition(world, "Ready").status) == (reason, "True")


def test_a_document_of_a_claim() -> None:
    spec = changed(SHOP, tools__0__openapi__uri="pvc://corpus/api/shop.yaml")
    world = started(spec, claims=())
    assert condition(world, "Accepted").reason == "PersistentVolumeClaimNotFound"
    settle(world, serving(), claims=("corpus",))
    assert config(world)["team"]["tools"][0]["openapi"]["path"] == "/volumes/corpus/api/shop.yaml"
    pod = world.objects["Deployment", "help-app"]["spec"]["template"]["spec"]
    assert {"name": "claim-0", "mountPath": "/volumes/corpus", "readOnly": True} in pod["containers"][0]["volumeMounts"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"agents__1__instructions": "Be kind. " * 300}, "spec.agents[1] worker"),
        ({"prompt__system": "Be kind. " * 300}, "spec.agents[0] lead"),
        ({"tools__0__http__parameters": CHOICES}, "spec.agents[1] worker"),
        ({"tools__3__openapi__inline": ORDERS.replace("getOrder", "getOrder\n      summary: " + "Tells. " * 140)
          + "".join(f"  /a{n}: {{get: {{operationId: o{n}, summary: {'Tells. ' * 100}}}}}\n" for n in range(4)),
          "tools__3__openapi__operations": []}, "spec.agents[1] worker"),
        ({"parameters": {"maxTokens": 1000}}, "spec.agents[0] lead"),
    ],
)  # fmt: skip
def test_what_agents_are_told_has_room_beside_what_they_write(change: Any, says: str) -> None:
    spec = changed(
        AGENTS, **{"parameters": {"maxTokens": 200}, "tools__0__http__url": "https://x.example.com", **change}
    )
    world = scene(spec)
    settle(world, serving(maxModelLength=1024), sources=FAQ)
    end_jobs(world)
    settle(world, serving(maxModelLength=1024), sources=FAQ)
    told = condition(world, "ModelResolved")
    assert (told.reason == "PromptTooLong") == bool(says), told.message
    assert says in told.message
    assert (("Deployment", "help-app") in world.objects) == (not says)
