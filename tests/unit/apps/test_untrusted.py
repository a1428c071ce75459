"""What others have written (a status, an annotation, a serving, a pod's last word) is data, whatever it says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from llm_app.config import METRICS
from llm_operator.apps.config_maps import Content
from llm_operator.apps.reconcile import reconcile
from llm_operator.kube.plan import Plan
from tests.app_specs import APP, PLAIN, RIGHT_APPS
from tests.hostile import MONSTERS
from tests.schema_values import changed_specs, spec_schema
from tests.specs import changed
from tests.unit.apps import scenes
from tests.unit.apps.scenes import condition, config, end_jobs, ready_app, run_pods, serving, settle
from tests.unit.world import START

SPECS = changed_specs(list(RIGHT_APPS), spec_schema("llmapps"))


ANOTHERS = (
    "pvc://secrets/x",
    "pvc://models/llm-apps/other-0123abcd/manual/0123456789ab",
    "pvc://models/llm-apps/help-0123abcd/laws/0123456789ab",
    "pvc://models/llm-apps/help-0123abcd/manual/../../other/0123456789ab",
    "pvc://models/llm-apps/help-0123abcd/manual/../../x",
    "pvc://../llm-apps/help-0123abcd/manual/0123456789ab",
)


@pytest.mark.parametrize("uri", ANOTHERS)
def test_a_folder_that_the_operator_would_not_use_is_none(uri: str) -> None:
    """Pods would mount its claim, which no spec names, and read another's index."""
    world = ready_app()
    before = config(world)
    world.owner["status"]["knowledge"][0]["uri"] = uri
    world.owner["spec"] = changed(APP, knowledge__0__edition="2")
    deployment = world.objects.pop(("Deployment", "help-app"))
    settle(world, serving())
    assert ("Deployment", "help-app") not in world.objects, "nothing is in use that it knows of"
    deployment["spec"]["template"]["metadata"]["annotations"] = {
        "llm-operator.io/knowledge": json.dumps({"manual": uri})
    }
    world.objects["Deployment", "help-app"] = deployment
    settle(world, serving())
    assert config(world) == before
    assert uri not in str(world.owner["status"])


@pytest.mark.parametrize(
    "url",
    ["http://evil.example.com/v1", "http://chat-serving.other.svc/v1", "http://chat-serving.team.svc/v1@evil.example.com",
     "http://a.b.team.svc/v1", "http://evil.example.com#chat-serving.team.svc/v1", "http://x/chat-serving.team.svc/v1"],
)  # fmt: skip
def test_an_address_that_the_operator_would_not_write_is_none(url: str) -> None:
    """Pods send the key of the serving there."""
    world = scenes.scene(PLAIN)
    told = serving(apiKey={"secretKeyRef": {"name": "k", "key": "chat"}})
    told["status"]["url"] = url
    settle(world, told)
    assert ("Deployment", "help-app") not in world.objects
    assert condition(world, "ModelResolved").reason == "ServingNotReady"
    assert url not in str(world.objects)


@pytest.mark.parametrize("monster", [name for name, make in MONSTERS.items() if make() is not None])
@pytest.mark.parametrize("field", ["adapters", "apiKey", "servedModelName", "maxModelLength", "tls", "extraArguments"])
def test_a_serving_of_any_shape_is_told(field: str, monster: str) -> None:
    """An older definition, or none, has let it in."""
    world = scenes.scene(changed(PLAIN, model__serving__adapter="law"))
    settle(world, serving(adapter="law", **{field: MONSTERS[monster]()}))
    told = condition(world, "ModelResolved")
    assert told.status == "True" or told.reason in ("ServingNotReady", "AdapterNotFound", "PromptTooLong"), told
    world = scenes.scene(PLAIN)
    source = serving()
    source["status"][field] = source["status"]["conditions"] = MONSTERS[monster]()
    settle(world, source)
    assert condition(world, "ModelResolved").reason == "ServingNotReady"


@pytest.mark.parametrize(
    "told", ["", "{", "[1]", '{"manual": 1}', '{"manual": "http://x"}', '{"manual": "pvc://a/../b"}']
)
def test_an_annotation_of_somebody_else_is_no_folder(told: str) -> None:
    world = ready_app()
    world.objects["Deployment", "help-app"]["spec"]["template"]["metadata"]["annotations"] = {
        "llm-operator.io/knowledge": told
    }
    settle(world, serving())
    assert world.owner["status"]["knowledge"][0]["uri"].startswith("pvc://models/llm-apps/help-0123abcd/manual/")


def test_a_status_is_bounded() -> None:
    world = ready_app()
    long = serving(ready=False, servedModelName="x" * 100_000)
    long["status"]["conditions"][0]["message"] = "y" * 1_000_000
    plan = reconcile(scenes.observed(world, long), START)
    assert len(str(plan.status)) < 16_384
    world.execute(Plan(status=plan.status))
    assert not reconcile(scenes.observed(world, long), START).events


def test_what_somebody_has_written_into_a_status_is_not_kept_at_its_size() -> None:
    world = ready_app()
    world.owner["status"]["knowledge"] *= 3000
    world.owner["status"]["knowledge"][0]["job"] = "\x1b[2J" + "x" * 100_000
    world.owner["spec"] = changed(APP, prompt__system="{{nobody}}")
    settle(world, serving())
    assert len(str(world.owner["status"])) < 32_768
    assert "\x1b" not in str(world.owner["status"])


@pytest.mark.parametrize(
    "word",
    [
        {"problem": "\x1b[2J\u202e" + "x" * 4000},
        {"problem": "p", "documents": -1},
        {"problem": "p", "documents": 10**4000},
        {"notRead": {"\x1b" * 3000: 10**400}},
        {"empty": ["\x00"] * 900},
        [],
        "x" * 4000,
        1e300,
    ],
)
@pytest.mark.parametrize("failed", [True, False])
def test_the_last_word_of_an_index_is_data(word: Any, failed: bool) -> None:
    world = scenes.scene()
    settle(world, serving())
    end_jobs(world, failed="x" if failed else "")
    for pod in world.of("Pod"):
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = json.dumps(word)
        world.objects["Pod", pod["metadata"]["name"]] = pod
    settle(world, serving())
    text = json.dumps(world.owner["status"])
    assert len(text) < 8192
    assert not any(sign in text for sign in ("\\u001b", "\\u202e", "\\u0000"))
    assert condition(world, "KnowledgeReady").reason == ("IndexFailed" if failed else "Indexed")


@settings(max_examples=3 * settings().max_examples)
@given(SPECS, st.booleans())
def test_any_app(spec: dict[str, Any], there: bool) -> None:
    """Whatever the API server may let through: it is refused in words, or answers in the end."""
    world, source = scenes.scene(spec), serving(adapter="acme/legal-v1.2") if there else None
    named = [one["configMap"]["name"] for k in spec.get("knowledge", ()) for one in k["sources"] if "configMap" in one]
    asked = (spec.get("evaluation") or {}).get("questions", {}).get("configMap") or {}
    named += [asked["name"]] if "name" in asked else []
    documents = [tool.get("openapi", {}).get("configMap") for tool in spec.get("tools", ())]
    named += [one["name"] for one in documents if one]
    keys = {"a.md": "1", "questions.jsonl": "2", "orders.yaml": "3"}
    more = {"sources": {name: Content(keys, "1") for name in named}, "claims": ("models", "corpus")}
    settle(world, source, **more)
    end_jobs(world)
    settle(world, source, **more)
    end_jobs(world, failed="", **{str(metric): 1.0 for metric in METRICS})
    settle(world, source, **more)
    if ("Deployment", "help-app") in world.objects:
        run_pods(world)
        settle(world, source, **more)
    event(world.owner["status"]["phase"])
    assert world.owner["status"]["phase"] in ("Ready", "Waiting", "Invalid", "ScaledToZero"), world.owner["status"]
