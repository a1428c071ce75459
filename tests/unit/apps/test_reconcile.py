from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_operator.apps.config_maps import Content
from llm_operator.apps.reconcile import apply_refused
from llm_operator.kube.plan import Manifest
from tests.app_specs import APP, EVERYTHING, PLAIN
from tests.specs import changed
from tests.unit.apps import scenes
from tests.unit.apps.scenes import condition, config, end_jobs, jobs, ready_app, run_pods, serving, settle, step
from tests.unit.world import NETWORK, START, check_golden

GOLDEN = Path(__file__).parent / "golden"


def test_the_first_index() -> None:
    world = scenes.scene()
    world.network = NETWORK
    check_golden(GOLDEN / "first_index.yaml", step(world, serving()))


def test_the_first_server_and_what_is_asked_before() -> None:
    world = scenes.scene(EVERYTHING)
    source = serving(
        adapter="acme/legal-v1.2", maxModelLength=4096, apiKey={"secretKeyRef": {"name": "k", "key": "chat"}},
        tls={"secretName": "chat-tls"},
    )  # fmt: skip
    settle(world, source)
    end_jobs(world)
    check_golden(GOLDEN / "first_evaluation.yaml", step(world, source))
    settle(world, source)
    end_jobs(world, hitAt3=0.9, judge=0.5)
    check_golden(GOLDEN / "first_server.yaml", step(world, source))


def test_what_goes_well_warns_nobody() -> None:
    """From the first index to pods that answer."""
    world = scenes.scene(APP)
    told = list(step(world, serving()).events)
    for happens in (end_jobs, run_pods):
        happens(world)
        told += [event for _ in range(3) for event in step(world, serving()).events]
    assert condition(world, "Ready").status == "True"
    assert {event.type for event in told} == {"Normal"}, told


def test_an_app_without_knowledge_needs_no_claim() -> None:
    world = scenes.scene(PLAIN)
    step(world, serving(), claims=())
    assert ("Deployment", "help-app") in world.objects
    assert not jobs(world)
    run_pods(world)
    settle(world, serving(), claims=())
    assert world.owner["status"]["phase"] == "Ready"
    assert "KnowledgeReady" not in {one["type"] for one in world.owner["status"]["conditions"]}


@pytest.mark.parametrize(
    ("source", "spec", "reason", "says"),
    [
        (None, PLAIN, "ServingNotFound", "LLMServing chat does not exist"),
        ({**serving(), "status": {}}, PLAIN, "ServingNotReady", "has no address yet"),
        (serving(), changed(PLAIN, model__serving__adapter="law"), "AdapterNotFound", "its adapters are none"),
        (serving(adapter="sql"), changed(PLAIN, model__serving__adapter="law"), "AdapterNotFound", "adapters are sql"),
        (serving(adapter="law", state="Waiting"), changed(PLAIN, model__serving__adapter="law"), "AdapterNotServed",
         "it comes"),
        (serving(extraArguments=["--runner=pooling"]), PLAIN, "NotAChatModel", "--runner pooling"),
        (serving(extraArguments=["--convert", "embed"]), PLAIN, "NotAChatModel", "writes no text"),
        (serving(maxModelLength=520), changed(PLAIN, prompt={"system": "x" * 300}), "PromptTooLong", "520"),
    ],
)  # fmt: skip
def test_without_a_model_no_pod_is_made(source: Manifest | None, spec: dict[str, Any], reason: str, says: str) -> None:
    world = scenes.scene(spec)
    settle(world, source)
    assert ("Deployment", "help-app") not in world.objects
    told = condition(world, "ModelResolved")
    assert (told.status, told.reason) == ("False", reason)
    assert says in told.message
    assert (condition(world, "Ready").reason, world.owner["status"]["phase"]) == (reason, "Waiting")


def test_it_follows_address_name_and_adapter_of_the_serving() -> None:
    world = ready_app(PLAIN)
    assert config(world)["model"] == {"url": "http://chat-serving.team.svc/v1", "name": "chat"}
    moved = serving(servedModelName="acme/base", maxModelLength=2048)
    moved["status"]["url"] = "https://chat-serving.team.svc/v1"
    settle(world, moved)
    assert config(world)["model"] == {
        "url": "https://chat-serving.team.svc/v1", "name": "acme/base", "contextTokens": 2048,
    }  # fmt: skip
    world.owner["spec"] = changed(PLAIN, model__serving__adapter="law")
    settle(world, serving(adapter="law"))
    assert config(world)["model"]["name"] == "law"


@pytest.mark.parametrize(
    "source", [None, {**serving(), "status": {}}, serving(ready=False), serving(extraArguments=["--runner=pooling"])]
)
def test_what_answers_stays_whatever_happens_to_the_serving(source: Manifest | None) -> None:
    world = ready_app()
    before = world.objects["Deployment", "help-app"]["spec"]
    settle(world, source)
    assert world.objects["Deployment", "help-app"]["spec"] == before
    assert condition(world, "ModelResolved").status == condition(world, "Ready").status == "False"
    assert condition(world, "Available").status == "True"
    world.owner["spec"] = changed(APP, replicas=3)
    settle(world, source)
    assert world.objects["Deployment", "help-app"]["spec"]["replicas"] == 3
    settle(world, serving())
    run_pods(world)
    settle(world, serving())
    assert world.owner["status"]["phase"] == "Ready"


def test_no_pod_before_all_knowledge_is_there() -> None:
    two = changed(APP, knowledge__1={"name": "laws", "sources": [{"name": "a", "uri": "pvc://corpus/laws"}]})
    world = scenes.scene(two)
    settle(world, serving())
    assert {knowledge for knowledge, _ in jobs(world)} == {"manual", "laws"}
    assert world.owner["status"]["phase"] == "Indexing"
    end_jobs(world)
    settle(world, serving())
    assert [one["name"] for one in config(world)["knowledge"]] == ["manual", "laws"]
    assert world.owner["status"]["knowledge"][0]["documents"] == 3


@pytest.mark.parametrize(
    ("change", "sources"),
    [
        ({"knowledge__0__chunking": {"size": 200}}, scenes.FAQ),
        ({"knowledge__0__edition": "2"}, scenes.FAQ),
        ({"knowledge__0__sources__0__inline": [{"text": "other"}]}, scenes.FAQ),
        ({"storage__persistentVolumeClaim__claimName": "corpus"}, scenes.FAQ),
        ({}, {"faq": Content(digest="2")}),
        ({"knowledge__0__sources__1__configMap": {"name": "faq", "keys": ["a.md"]}}, scenes.FAQ),
    ],
)
def test_a_new_revision_takes_the_place_of_the_old_one_when_it_is_made(change: Any, sources: Any) -> None:
    world = ready_app()
    [(_, old)] = jobs(world)
    folder = config(world)["knowledge"][0]["folder"]
    world.owner["spec"] = changed(APP, **change)
    settle(world, serving(), sources=sources)
    (new,) = {revision for _, revision in jobs(world)} - {old}
    assert config(world)["knowledge"][0]["folder"] == folder, "not before it is made"
    assert f"meanwhile revision {old} is used" in condition(world, "KnowledgeReady").message
    assert world.owner["status"]["phase"] == "Degraded"
    end_jobs(world)
    step(world, serving(), sources=sources)
    assert config(world)["knowledge"][0]["revision"] == new
    assert {old, new} == {revision for _, revision in jobs(world)}, "an old pod may have to start once more"
    run_pods(world)
    settle(world, serving(), sources=sources)
    assert [revision for _, revision in jobs(world)] == [new]
    assert len(world.of("ConfigMap")) == 2, "of the server and of the Job"
    assert world.owner["status"]["phase"] == "Ready"


def test_what_changes_no_document_is_no_new_revision() -> None:
    world = ready_app()
    before = jobs(world).keys()
    world.owner["spec"] = changed(APP, knowledge__0__retrieval={"topK": 9}, prompt__system="new", replicas=2)
    settle(world, serving())
    assert jobs(world).keys() == before
    assert config(world)["knowledge"][0]["retrieval"]["topK"] == 9
    assert config(world)["prompt"]["system"] == "new"


def test_a_failed_index_leaves_the_old_one_in_use_and_is_not_tried_for_ever() -> None:
    world = ready_app()
    [(_, old)] = jobs(world)
    world.owner["spec"] = changed(APP, knowledge__0__edition="2")
    settle(world, serving())
    end_jobs(world, failed="corpus/manual/a.txt: is UTF-16; write it as UTF-8")
    settle(world, serving())
    assert config(world)["knowledge"][0]["revision"] == old
    told = condition(world, "KnowledgeReady")
    assert (told.status, told.reason) == ("False", "IndexFailed")
    assert "is UTF-16" in told.message
    assert "delete Job help-manual-" in told.message
    assert (condition(world, "Ready").status, world.owner["status"]["phase"]) == ("True", "Degraded")
    assert len(jobs(world)) == 2
    world.owner["spec"] = changed(APP, knowledge__0__edition="3")
    settle(world, serving())
    assert len(jobs(world)) == 2, "the one that failed has gone"
    world.owner["spec"] = APP
    settle(world, serving())
    assert list(jobs(world)) == [("manual", old)], "and back again costs nothing"
    assert world.owner["status"]["phase"] == "Ready"


def test_the_first_index_that_fails_keeps_pods_from_being_made() -> None:
    world = scenes.scene()
    settle(world, serving())
    end_jobs(world, failed="no document has any text")
    settle(world, serving())
    assert ("Deployment", "help-app") not in world.objects
    assert (condition(world, "Ready").reason, world.owner["status"]["phase"]) == ("IndexFailed", "Waiting")
    del world.objects["Job", next(iter(jobs(world).values()))["metadata"]["name"]]
    settle(world, serving())
    assert len(jobs(world)) == 1, "a deleted Job is tried again"


@pytest.mark.parametrize(
    ("more", "reason", "says"),
    [
        ({"claims": ("models",)}, "PersistentVolumeClaimNotFound", "corpus"),
        ({"claims": ("corpus",)}, "PersistentVolumeClaimNotFound", "models"),
        ({"sources": {"faq": Content(problem="ConfigMap faq does not exist")}}, "SourceNotFound", "faq does not exist"),
        ({"sources": {}}, "Indexing", "not known yet"),
        ({"sources": {"faq": Content()}}, "Indexing", "not known yet"),  # the API server gave no answer
    ],
)
def test_a_job_waits_for_what_it_mounts(more: Any, reason: str, says: str) -> None:
    world = scenes.scene()
    settle(world, serving(), **more)
    assert not jobs(world)
    assert condition(world, "KnowledgeReady").reason == reason
    assert says in condition(world, "KnowledgeReady").message


def test_keys_that_a_config_map_lacks() -> None:
    world = scenes.scene(EVERYTHING)
    settle(world, serving(adapter="acme/legal-v1.2"), sources={"faq": Content(digest="1", some=("b.md",))})
    assert "has no key 'a.md'; its keys are b.md" in condition(world, "KnowledgeReady").message


def test_an_index_keeps_what_pods_may_have() -> None:
    """Two changes, one after the other, before a pod is replaced."""
    world = ready_app()
    [(_, first)] = jobs(world)
    world.owner["spec"] = changed(APP, knowledge__0__edition="2")
    settle(world, serving())
    end_jobs(world)
    step(world, serving())
    world.owner["spec"] = changed(APP, knowledge__0__edition="3")
    plan = step(world, serving())
    [made] = [one for one in plan.create if "index.json" in one.get("data", {})]
    assert first in made["data"]["index.json"]
    assert len(jobs(world)) == 3


def test_knowledge_that_is_removed_leaves_no_job() -> None:
    world = ready_app()
    world.owner["spec"] = PLAIN
    settle(world, serving())
    run_pods(world)
    settle(world, serving())
    assert not jobs(world)
    assert len(world.of("ConfigMap")) == 1


def test_a_deployment_that_was_deleted_comes_back_with_the_revision_in_use() -> None:
    world = ready_app()
    folder = config(world)["knowledge"][0]["folder"]
    world.owner["spec"] = changed(APP, knowledge__0__edition="2")
    settle(world, serving())
    end_jobs(world, failed="x")
    settle(world, serving())
    del world.objects["Deployment", "help-app"]
    settle(world, serving())
    assert config(world)["knowledge"][0]["folder"] == folder


def test_a_spec_that_can_not_work_changes_nothing() -> None:
    world = ready_app()
    before = dict(world.objects)
    world.owner["spec"] = changed(APP, prompt__system="{{nobody}}")
    settle(world, serving())
    assert world.objects == before
    assert (condition(world, "Accepted").status, condition(world, "Ready").reason) == ("False", "InvalidSpec")
    assert world.owner["status"]["phase"] == "Invalid"


def test_a_refusal_is_told() -> None:
    world = ready_app()
    plan = apply_refused(scenes.observed(world, serving()), "jobs is forbidden: exceeded quota", START)
    world.execute(plan)
    assert "exceeded quota" in condition(world, "Ready").message
    assert condition(world, "Ready").status == "True"
