"""Embedding servings that an app follows, stores, and knowledge that is read again after a time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_operator.apps.knowledge import PLACE
from llm_operator.apps.reconcile import reconcile
from llm_operator.kube.plan import Manifest
from tests.app_specs import EMBEDDED, IN_CHROMA, IN_DATABASE
from tests.specs import REMOVE, changed
from tests.unit.apps import scenes
from tests.unit.apps.scenes import condition, config, end_jobs, jobs, run_pods, serving, settle
from tests.unit.world import NETWORK, START, World


def embedder(*, ready: bool = True, digest: str = "sha256:1", **spec: Any) -> dict[str, Manifest]:
    made = serving(ready=ready, **{"task": "embed", **spec})
    made["status"] |= {"url": "http://embedder-serving.team.svc/v1", "model": {"uri": "pvc://m/e", "digest": digest}}
    return {"embedder": made}


def index_config(world: World) -> dict[str, Any]:
    """Of the newest Job: one that has not ended, if there is any."""
    name = min(world.of("Job"), key=lambda job: bool(job.get("status")))["metadata"]["name"]
    found: dict[str, Any] = json.loads(world.objects["ConfigMap", name]["data"]["index.json"])
    return found


def made(spec: Any, embedders: dict[str, Manifest], now: float = START) -> World:
    world = scenes.scene(spec)
    settle(world, serving(), embedders=embedders, now=now)
    end_jobs(world)
    settle(world, serving(), embedders=embedders, now=now)
    run_pods(world)
    settle(world, serving(), embedders=embedders, now=now)
    assert world.owner["status"]["phase"] == "Ready", world.owner["status"]
    return world


def test_pods_are_told_what_embeds() -> None:
    key = {"secretKeyRef": {"name": "keys", "key": "e"}}
    world = made(EMBEDDED, embedder(apiKey=key, tls={"secretName": "e-tls"}, servedModelName="bge"))
    told = {"url": "http://embedder-serving.team.svc/v1", "name": "bge", "model": "sha256:1",
            "queryPrefix": "query: ", "documentPrefix": "passage: "}  # fmt: skip
    assert index_config(world)["embedding"] == config(world)["knowledge"][0]["embedding"] == told
    [job] = world.of("Job")
    for template in (job["spec"]["template"], world.objects["Deployment", "help-app"]["spec"]["template"]):
        [container] = template["spec"]["containers"]
        variable = {"name": "LLM_APP_EMBEDDING_API_KEY_MANUAL", "valueFrom": {"secretKeyRef": key["secretKeyRef"]}}
        assert variable in container["env"]
        assert "/etc/llm-operator/embedding/manual" in [mount["mountPath"] for mount in container["volumeMounts"]]
        assert "e-tls" in [volume.get("secret", {}).get("secretName") for volume in template["spec"]["volumes"]]


def test_its_pods_may_reach_what_embeds() -> None:
    world = scenes.scene(EMBEDDED)
    world.network = NETWORK
    settle(world, serving(), embedders=embedder())
    server = policies(world)["help-app"]
    assert server["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "server"
    assert asked_servings(server) == ["chat", "embedder"]


def policies(world: World) -> dict[str, Any]:
    return {found["metadata"]["name"]: found["spec"] for found in world.of("NetworkPolicy")}


def asked_servings(policy: Any) -> list[str]:
    peers = [peer for rule in policy["egress"] for peer in rule.get("to", ())]
    chosen = [peer["podSelector"]["matchLabels"] for peer in peers if "podSelector" in peer]
    return [labels["llm-operator.io/serving"] for labels in chosen if "llm-operator.io/serving" in labels]


def test_a_job_that_indexes_has_a_policy_of_its_own() -> None:
    """Nobody reaches it, and it reaches what embeds, and the pages that the spec names."""
    world = scenes.scene(IN_DATABASE)
    world.network = NETWORK
    kinds = [one["kind"] for one in scenes.step(world, serving(), embedders=embedder()).create]
    assert kinds.index("NetworkPolicy") < kinds.index("Job")
    [job] = jobs(world).values()
    found = policies(world)[job["metadata"]["name"]]
    assert found["podSelector"]["matchLabels"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    assert found["ingress"] == []
    assert asked_servings(found) == ["embedder"]
    blocks = [peer["ipBlock"] for rule in found["egress"] for peer in rule.get("to", ()) if "ipBlock" in peer]
    assert {"10.1.0.0/16", "fd00::/8"} < {block["cidr"] for block in blocks}
    assert "10.0.0.0/8" in next(block for block in blocks if block["cidr"] == "0.0.0.0/0")["except"]


@pytest.mark.parametrize(
    ("url", "port"),
    [("http://chroma.data.svc:8000", 8000), ("https://chroma.example.com/v", 443), ("http://[fd00::7]:65535", 65535)],
)
def test_what_indexes_and_what_answers_reach_a_store_whose_address_the_spec_has(url: str, port: int) -> None:
    world = scenes.scene(changed(EMBEDDED, knowledge__0__store={"chroma": {"url": url}}))
    world.network = NETWORK
    settle(world, serving(), embedders=embedder())
    [job] = jobs(world).values()
    for name in (job["metadata"]["name"], "help-app"):
        assert {"ports": [{"port": port, "protocol": "TCP"}]} in policies(world)[name]["egress"], name


def test_the_policy_of_a_job_stays_as_long_as_its_pods_do() -> None:
    world = scenes.scene(EMBEDDED)
    world.network = NETWORK
    settle(world, serving(), embedders=embedder())
    [first] = [job["metadata"]["name"] for job in jobs(world).values()]
    end_jobs(world)
    pod = world.objects["Pod", f"{first}-x"]
    pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] = first
    del world.objects["Job", first]
    world.owner["spec"] = changed(EMBEDDED, knowledge__0__edition="2")
    settle(world, serving(), embedders=embedder())
    assert first in policies(world)
    del world.objects["Pod", f"{first}-x"]
    settle(world, serving(), embedders=embedder())
    [second] = [job["metadata"]["name"] for job in jobs(world).values()]
    assert {*policies(world)} == {"help-app", second}


@pytest.mark.parametrize(
    ("embedders", "reason", "says"),
    [
        ({}, "ServingNotFound", "spec.knowledge manual, embedding: LLMServing embedder does not exist"),
        (embedder(task="generate"), "NotAnEmbeddingModel", "name one whose spec.task is embed"),
        (embedder(task="generate", extraArguments=["--runner=pooling", "--convert=classify"]), "NotAnEmbeddingModel",
         "spec.task is embed"),
        ({"embedder": serving(task="embed")}, "ServingNotReady", "has not answered yet"),
        (embedder(ready=False), "ServingNotReady", "does not answer"),
    ],
)  # fmt: skip
def test_what_can_not_embed_is_told_and_no_job_is_made(embedders: dict[str, Manifest], reason: str, says: str) -> None:
    world = scenes.scene(EMBEDDED)
    settle(world, serving(), embedders=embedders)
    assert not jobs(world)
    assert condition(world, "ModelResolved").reason == condition(world, "KnowledgeReady").reason == reason
    assert says in condition(world, "ModelResolved").message
    ready = made(EMBEDDED, embedder())
    before = ready.objects["Deployment", "help-app"]["spec"]
    settle(ready, serving(), embedders=embedders)
    assert ready.objects["Deployment", "help-app"]["spec"] == before, "what answers stays"
    assert condition(ready, "ModelResolved").reason == reason


def test_arguments_may_say_that_a_serving_embeds() -> None:
    made(EMBEDDED, embedder(task="generate", extraArguments=["--runner", "pooling"]))


def test_an_embedding_model_writes_no_answers() -> None:
    world = scenes.scene()
    settle(world, serving(task="embed"))
    assert condition(world, "ModelResolved").reason == "NotAChatModel"
    assert "spec.task embed" in condition(world, "ModelResolved").message


def test_another_embedding_model_is_another_revision() -> None:
    world = made(EMBEDDED, embedder())
    [(_, old)] = jobs(world)
    settle(world, serving(), embedders=embedder(digest="sha256:2"))
    assert len(jobs(world)) == 2
    assert index_config(world)["used"] == old
    assert config(world)["knowledge"][0]["revision"] == old


def test_a_database_needs_no_claim() -> None:
    world = made(changed(IN_DATABASE, knowledge__0__refreshSeconds=None), embedder())
    [one] = config(world)["knowledge"]
    assert one["store"] == {"schemaName": "apps", "owner": world.owner["metadata"]["uid"]}
    assert PLACE.fullmatch(world.owner["status"]["knowledge"][0]["uri"])
    assert one["folder"] == ""
    template = world.objects["Deployment", "help-app"]["spec"]["template"]["spec"]
    assert not [volume for volume in template["volumes"] if "persistentVolumeClaim" in volume]
    variable = {"name": "LLM_APP_STORE_URL_SITE", "valueFrom": {"secretKeyRef": {"name": "database", "key": "url"}}}
    assert variable in template["containers"][0]["env"]
    [source] = index_config(world)["sources"]
    assert (source["urls"], source["allowedNetworks"]) == (["https://example.com/a.html"], ["10.1.0.0/16", "fd00::/8"])


ONCE = {"knowledge__0__refreshSeconds": REMOVE}


def test_chroma_has_its_token_by_a_secret() -> None:
    world = made(changed(IN_CHROMA, **ONCE), embedder())
    [one] = config(world)["knowledge"]
    server = {"url": "https://chroma.example.com/base", "tenant": "team", "database": "apps",
              "tokenHeader": "Authorization"}  # fmt: skip
    assert one["store"] == {"schemaName": "", "owner": world.owner["metadata"]["uid"], "chroma": server}
    assert index_config(world)["store"] == one["store"]
    [container] = world.objects["Deployment", "help-app"]["spec"]["template"]["spec"]["containers"]
    variable = {"name": "LLM_APP_STORE_TOKEN_SITE", "valueFrom": {"secretKeyRef": {"name": "chroma", "key": "token"}}}
    assert variable in container["env"]
    assert PLACE.fullmatch(world.owner["status"]["knowledge"][0]["uri"])


@pytest.mark.parametrize("after", ["folder", "chroma", "another schema", "another Secret"])
def test_pods_stay_as_they_are_until_another_store_has_the_knowledge(after: str) -> None:
    """What they have is in the store before, which new pods could not reach."""
    store = {
        "folder": REMOVE, "chroma": IN_CHROMA["knowledge"][0]["store"],
        "another schema": {"pgvector": {"urlSecretKeyRef": {"name": "database", "key": "url"}, "schemaName": "b"}},
        "another Secret": {"pgvector": {"urlSecretKeyRef": {"name": "new", "key": "url"}, "schemaName": "apps"}},
    }[after]  # fmt: skip
    world = made(changed(IN_DATABASE, **ONCE), embedder())
    before = world.objects["Deployment", "help-app"]["spec"]["template"]
    first = config(world)["knowledge"][0]["revision"]
    storage = {"persistentVolumeClaim": {"claimName": "models"}}
    world.owner["spec"] = changed(IN_DATABASE, **ONCE, storage=storage, knowledge__0__store=store,
                                  prompt={"system": "New."})  # fmt: skip
    settle(world, serving(), embedders=embedder())
    assert world.objects["Deployment", "help-app"]["spec"]["template"] == before
    assert condition(world, "KnowledgeReady").reason == "Indexing"
    assert world.owner["status"]["knowledge"][0]["activeRevision"] == first
    end_jobs(world)
    settle(world, serving(), embedders=embedder())
    assert config(world)["prompt"]["system"] == "New."
    assert config(world)["knowledge"][0]["revision"] != first
    assert ("store" in config(world)["knowledge"][0]) == (after != "folder")


REFRESHED = changed(EMBEDDED, knowledge__0__refreshSeconds=3600)


def end_same(world: World, revision: str) -> None:
    end_jobs(world)
    for (kind, _), pod in world.objects.items():
        if kind == "Pod" and "containerStatuses" in pod["status"]:
            ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
            ended["message"] = json.dumps({"documents": 3, "chunks": 7, "same": revision})


def test_what_has_not_changed_after_a_time_is_not_rolled_out() -> None:
    world = made(REFRESHED, embedder())
    [(_, first)] = jobs(world)
    wait = reconcile(scenes.observed(world, serving(), embedders=embedder()), START).requeue_after
    assert wait is not None
    assert 0 < wait <= 3600
    before = world.objects["Deployment", "help-app"]["spec"]["template"]
    settle(world, serving(), embedders=embedder(), now=START + wait + 1)
    (second,) = {revision for _, revision in jobs(world)} - {first}
    assert second.partition("-")[0] == first.partition("-")[0]
    settle(world, serving(), embedders=embedder(), now=START + wait + 7300)
    assert len(jobs(world)) == 2, "one that has not ended is waited for"
    end_same(world, first)
    settle(world, serving(), embedders=embedder(), now=START + wait + 2)
    assert world.objects["Deployment", "help-app"]["spec"]["template"] == before
    assert condition(world, "KnowledgeReady").status == "True"
    assert "nothing has changed" in condition(world, "KnowledgeReady").message
    assert world.owner["status"]["knowledge"][0]["activeRevision"] == first


def test_what_has_changed_after_a_time_is_rolled_out() -> None:
    world = made(REFRESHED, embedder())
    [(_, first)] = jobs(world)
    settle(world, serving(), embedders=embedder(), now=START + 3601)
    assert config(world)["knowledge"][0]["revision"] == first, "not before it is made"
    end_jobs(world)
    settle(world, serving(), embedders=embedder(), now=START + 3601)
    assert config(world)["knowledge"][0]["revision"] != first
