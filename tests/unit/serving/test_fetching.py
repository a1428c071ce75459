"""Models and adapters from elsewhere: which revision pods are given, and what is told meanwhile."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from llm_operator.api.serving import LLMServingSpec
from llm_operator.kube.labels import JOB_NAME
from llm_operator.kube.network import ANYWHERE
from llm_operator.kube.plan import Manifest, Plan
from llm_operator.serving.fetching import RETRY_SECONDS, UNHEARD_SECONDS
from llm_operator.serving.reconcile import reconcile
from llm_trainer.config import ModelFetch
from llm_trainer.protocol import PROGRESS_PORT, FetchedInput, Progress, Termination
from tests.serving_specs import FETCHED, STORE
from tests.specs import REMOVE, Spec, changed
from tests.unit.serving.scenes import condition, observed, run_pods, scene, settle, step, with_adapter
from tests.unit.world import NETWORK, START, World

ON_NODES = changed(FETCHED, modelCache={"emptyDir": {"sizeLimit": "1Gi"}})
COMMIT, NEXT = "a" * 40, "b" * 40
SIZE = 1000


def job_of(world: World) -> Manifest:
    (job,) = [found for (kind, _), found in world.objects.items() if kind == "Job"]
    return job


def wanted_of(container: Manifest) -> ModelFetch:
    (text,) = [each["value"] for each in container["env"] if each["name"] == "LLM_FETCH"]
    return ModelFetch.model_validate_json(text.replace("$$", "$"))


def asked_of(world: World) -> ModelFetch:
    """What the Job is told to fetch."""
    (container,) = job_of(world)["spec"]["template"]["spec"]["containers"]
    return wanted_of(container)


def end(world: World, revision: str = COMMIT, *, code: int = 0, message: str = "", size: int = SIZE) -> None:
    """Its pod ends, and the Job with it."""
    job = job_of(world)
    uri = asked_of(world).input.uri
    told = FetchedInput(uri=uri, revision=revision, bytes=size, license="mit")
    word = Termination(reason="Succeeded", progress=Progress(stage="fetch", attempt=0, inputs=[told]))
    if code:
        word = Termination(reason="DataError", message=message, exit_code=code)
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    phase = "Failed" if code else "Succeeded"
    state = {"terminated": {"exitCode": code, "message": word.model_dump_json(by_alias=True, exclude_none=True)}}
    world.objects["Pod", f"{name}-x"] = {
        "kind": "Pod",
        "metadata": {"name": f"{name}-x", "namespace": "team", "uid": f"{uid}-x",
                     "ownerReferences": [{"kind": "Job", "apiVersion": "batch/v1", "uid": uid, "controller": True}]},
        "spec": {"nodeName": "node-a"},
        "status": {"phase": phase, "containerStatuses": [{"name": "fetch", "state": state}]},
    }  # fmt: skip
    job["status"] = {"conditions": [{"type": "Failed" if code else "Complete", "status": "True"}]}


def test_a_job_that_fetches_has_a_policy_of_its_own() -> None:
    """The operator asks it how far it is; it reaches hubs, and the serving's own pods do not."""
    world = scene(FETCHED)
    world.network = NETWORK
    first = step(world, None)
    assert [one["kind"] for one in first.create] == ["NetworkPolicy", "Job"]
    settle(world, None)
    name = job_of(world)["metadata"]["name"]
    found = world.objects["NetworkPolicy", name]["spec"]
    [ingress] = found["ingress"]
    assert (ingress["from"], ingress["ports"]) == ([NETWORK.operator], [{"port": PROGRESS_PORT, "protocol": "TCP"}])
    assert ANYWHERE in found["egress"]
    assert found["podSelector"]["matchLabels"] == {JOB_NAME: name}
    end(world)
    settle(world, None)
    assert ANYWHERE not in world.objects["NetworkPolicy", "chat-serving"]["spec"]["egress"]
    del world.objects["Job", name]
    world.owner["status"]["inputs"] = []
    again = step(world, None)
    assert [one["kind"] for one in again.create] == ["Job"], "its policy is there"
    pod = world.objects["Pod", f"{name}-x"]
    pod["metadata"]["labels"] = {JOB_NAME: name}
    del world.objects["Job", name]
    world.owner["spec"] = changed(FETCHED, model__uri="pvc://models/base", modelCache=REMOVE)
    settle(world, None)
    assert ("NetworkPolicy", name) in world.objects, "its pod would be open"
    del world.objects["Pod", f"{name}-x"]
    settle(world, None)
    assert ("NetworkPolicy", name) not in world.objects
    assert ("NetworkPolicy", "chat-serving") in world.objects


def test_a_pod_that_does_not_start_names_the_secrets_that_it_may_wait_for() -> None:
    """That one is missing stands in events alone."""
    world = scene(changed(FETCHED, credentials=[STORE, {"secretName": "hub", "for": "hf"}]))
    settle(world, None)
    end(world)
    job, pod = job_of(world), world.objects["Pod", f"{job_of(world)['metadata']['name']}-x"]
    job["status"] = {"active": 1}
    for state, says in (("waiting", True), ("running", False)):
        pod["status"] = {"phase": "Pending", "containerStatuses": [{"name": "fetch", "state": {state: {}}}]}
        settle(world, None)
        said = world.owner["status"]["inputs"][0]["message"]
        assert ("it needs the Secret store and hub of spec.credentials" in said) is says


def serves(world: World) -> str:
    """The folder that the pods' command names."""
    return str(world.objects["Deployment", "chat-serving"]["spec"]["template"]["spec"]["containers"][0]["command"][-1])


def fetched(spec: Spec = FETCHED) -> World:
    """With the first revision found, and pods that serve it."""
    world = scene(spec)
    settle(world, None)
    end(world)
    settle(world, None)
    run_pods(world)
    settle(world, None)
    return world


def edit(world: World, **paths: Any) -> None:
    world.owner["spec"] = changed(world.owner["spec"], **paths)
    world.owner["metadata"]["generation"] += 1


def test_a_job_fetches_before_any_pod_is_made() -> None:
    world = scene(FETCHED)
    settle(world, None)
    assert ("Deployment", "chat-serving") not in world.objects
    told = condition(world, "ModelAvailable")
    assert (told["status"], told["reason"]) == ("False", "Fetching")
    assert asked_of(world).cache == "/volumes/.models/.fetched"
    end(world)
    settle(world, None)
    assert serves(world) == f"/volumes/.models/.fetched/hf/models/org/name/{COMMIT}"
    run_pods(world)
    settle(world, None)
    status = world.owner["status"]
    assert status["phase"] == "Ready"
    assert status["model"] == {"uri": "hf://org/name@main", "revision": COMMIT}
    (entry,) = status["inputs"]
    assert (entry["revision"], entry["bytes"], entry["license"], entry["reason"]) == (COMMIT, SIZE, "mit", "Fetched")


def test_vllm_has_no_credentials_and_writes_no_cache() -> None:
    for spec in (changed(FETCHED, credentials=[STORE]), changed(ON_NODES, credentials=[STORE])):
        world = fetched(spec)
        pod = world.objects["Deployment", "chat-serving"]["spec"]["template"]["spec"]
        (server,) = pod["containers"]
        mounts = {mount["name"]: mount for mount in server["volumeMounts"]}
        assert mounts["model-cache"]["readOnly"]
        assert not [name for name in mounts if name.startswith("credential")]
        assert "store" not in json.dumps(server)
        fetchers = pod.get("initContainers") or job_of(world)["spec"]["template"]["spec"]["containers"]
        assert "credential-0" in {mount["name"] for mount in fetchers[0]["volumeMounts"]}
        (given,) = wanted_of(fetchers[0]).credentials
        assert (given.secret_name, given.target) == ("store", "s3://models")


def test_a_cache_of_each_pod_is_filled_at_the_revision_that_was_found() -> None:
    world = fetched(ON_NODES)
    assert asked_of(world).cache == "", "its Job only looks"
    pod = world.objects["Deployment", "chat-serving"]["spec"]["template"]["spec"]
    (first,) = pod["initContainers"]
    assert wanted_of(first).input.revision == COMMIT
    assert wanted_of(first).cache == "/volumes/.models/.fetched"
    (volume,) = [each for each in pod["volumes"] if each["name"] == "model-cache"]
    assert volume["emptyDir"] == {"sizeLimit": "1Gi"}


def test_a_cache_that_is_too_small_is_refused_before_any_pod() -> None:
    world = scene(ON_NODES)
    settle(world, None)
    end(world, size=2 << 30)
    settle(world, None)
    assert ("Deployment", "chat-serving") not in world.objects
    told = condition(world, "ModelAvailable")
    assert told["reason"] == "InvalidSpec"
    assert (
        "spec.modelCache.emptyDir.sizeLimit: 1Gi is less than the 2,147,483,648 bytes of hf://org/name"
        in told["message"]
    )


def test_the_first_revision_is_kept() -> None:
    """Whatever becomes of its Job, and when the Secrets change, which is another Job."""
    world = fetched()
    before, template = serves(world), copy.deepcopy(world.objects["Deployment", "chat-serving"]["spec"]["template"])
    world.execute(Plan(delete=()))
    del world.objects["Job", job_of(world)["metadata"]["name"]]
    settle(world, None)
    assert asked_of(world).input.revision == COMMIT
    assert world.objects["Deployment", "chat-serving"]["spec"]["template"] == template, "what serves goes on meanwhile"
    assert condition(world, "ModelAvailable")["status"] == "True"
    edit(world, credentials=[STORE])
    settle(world, None)
    assert asked_of(world).input.revision == COMMIT
    end(world)
    settle(world, None)
    assert serves(world) == before


def test_a_new_revision_is_followed_if_asked() -> None:
    world = fetched(changed(FETCHED, modelCache__refreshIntervalSeconds=3600))
    first = job_of(world)
    plan = reconcile(observed(world, None, now=START + 1), START + 1)
    assert plan.requeue_after == pytest.approx(3599, abs=1)
    settle(world, None, START + 3600)
    assert asked_of(world).input.revision == ""
    assert job_of(world) is not first
    assert serves(world).endswith(COMMIT), "until the newest is there"
    end(world, NEXT)
    settle(world, None, START + 3601)
    assert serves(world).endswith(NEXT)
    assert world.owner["status"]["inputs"][0]["revision"] == NEXT


def test_a_refresh_that_fails_leaves_what_serves() -> None:
    world = fetched(changed(FETCHED, modelCache__refreshIntervalSeconds=3600))
    settle(world, None, START + 3600)
    end(world, code=65, message="spec.model.uri: hf://org/name: there is no such repository")
    settle(world, None, START + 3601)
    assert serves(world).endswith(COMMIT)
    assert condition(world, "ModelAvailable")["status"] == "True"
    (entry,) = world.owner["status"]["inputs"]
    assert entry["reason"] == "FetchFailed"
    assert "there is no such repository" in entry["message"]


def test_a_failure_is_told_and_tried_again() -> None:
    world = scene(FETCHED)
    settle(world, None)
    end(world, code=65, message="spec.model.uri: hf://org/name is gated")
    settle(world, None)
    told = condition(world, "ModelAvailable")
    assert (told["reason"], told["status"]) == ("FetchFailed", "False")
    assert "spec.model.uri: hf://org/name is gated" in told["message"]
    failed = job_of(world)
    settle(world, None, START + RETRY_SECONDS - 1)
    assert job_of(world) is failed
    settle(world, None, START + RETRY_SECONDS)
    assert "status" not in job_of(world), "another one"


def test_a_job_whose_word_is_lost_is_made_again() -> None:
    world = scene(FETCHED)
    settle(world, None)
    end(world)
    name = job_of(world)["metadata"]["name"]
    del world.objects["Pod", f"{name}-x"]
    settle(world, None)
    assert ("Deployment", "chat-serving") not in world.objects
    settle(world, None, START + UNHEARD_SECONDS)
    assert "status" not in job_of(world)


def test_another_cache_is_filled_before_pods_look_there() -> None:
    world = fetched()
    template = copy.deepcopy(world.objects["Deployment", "chat-serving"]["spec"]["template"])
    edit(world, modelCache={"emptyDir": {"sizeLimit": "1Gi"}}, replicas=2)
    settle(world, None)
    deployment = world.objects["Deployment", "chat-serving"]["spec"]
    assert deployment["template"] == template
    assert deployment["replicas"] == 2
    assert asked_of(world).input.revision == COMMIT, "and the old Job is gone"
    end(world)
    settle(world, None)
    assert "initContainers" in world.objects["Deployment", "chat-serving"]["spec"]["template"]["spec"]


def test_a_claim_that_one_node_mounts_is_refused_for_two_pods() -> None:
    world = scene(changed(FETCHED, replicas=2))

    def told(*modes: str) -> Any:
        seen = replace(observed(world, None), access_modes={"models": frozenset(modes)})
        plan = reconcile(seen, START)
        return next(each for each in (plan.status or {})["conditions"] if each["type"] == "ModelAvailable"), plan

    said, plan = told("ReadWriteOnce")
    assert said["reason"] == "PersistentVolumeClaimAccessMode"
    assert "spec.replicas is 2; use a claim of access mode ReadWriteMany" in said["message"]
    assert not plan.create
    assert told("ReadWriteOnce", "ReadWriteMany")[0]["reason"] == "Fetching"
    assert told("ReadWriteOncePod")[0]["reason"] == "PersistentVolumeClaimAccessMode"
    edit(world, replicas=1)
    assert told("ReadWriteOnce")[0]["reason"] == "Fetching"


def test_a_claim_that_is_missing_is_named() -> None:
    world = scene(FETCHED)
    plan = reconcile(observed(world, None, claims=()), START)
    assert not plan.create
    told = next(each for each in (plan.status or {})["conditions"] if each["type"] == "ModelAvailable")
    assert "PersistentVolumeClaim models of spec.modelCache does not exist" in told["message"]


def test_a_claim_that_goes_when_all_is_fetched_is_named() -> None:
    world = fetched()
    plan = reconcile(observed(world, None, claims=()), START)
    told = next(each for each in (plan.status or {})["conditions"] if each["type"] == "ModelAvailable")
    assert (told["status"], told["reason"]) == ("False", "PersistentVolumeClaimNotFound")
    assert "PersistentVolumeClaim models of spec.modelCache does not exist" in told["message"]


@pytest.mark.parametrize(("refresh", "says"), [(None, "after 10 minutes"), (90, "after 90 seconds")])
def test_a_job_that_failed_tells_when_it_is_tried_again(refresh: int | None, says: str) -> None:
    spec = FETCHED if refresh is None else changed(FETCHED, modelCache__refreshIntervalSeconds=refresh)
    world = scene(spec)
    settle(world, None)
    end(world, code=65, message="hf://org/name needs a token")
    settle(world, None)
    assert says in condition(world, "ModelAvailable")["message"]


def test_how_far_a_job_is() -> None:
    world = scene(FETCHED)
    settle(world, None)
    end(world)
    job_of(world).pop("status")
    pod = next(found for (kind, _), found in world.objects.items() if kind == "Pod")
    pod["status"]["containerStatuses"][0]["state"] = {"running": {}}
    seen = observed(world, None)
    said = Progress(stage="fetch", attempt=0, fetched_bytes=10, fetch_bytes=100, eta_seconds=9.4)
    plan = reconcile(replace(seen, asked=seen.fetching[0], fetch_progress=said), START)
    (entry,) = (plan.status or {})["inputs"]
    assert (entry["fetchedBytes"], entry["fetchBytes"], entry["etaSeconds"]) == (10, 100, 9)


def test_an_adapter_that_is_not_there_keeps_no_model_from_being_served() -> None:
    world = fetched(FETCHED)
    first = job_of(world)["metadata"]["name"]
    edit(world, adapters=[{"name": "law", "uri": "s3://models/law"}], credentials=[])
    settle(world, None)
    args = world.objects["Deployment", "chat-serving"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--enable-lora" not in args
    assert world.owner["status"]["adapters"][0]["state"] == "Waiting"
    known = world.objects.pop(("Job", first))
    end(world, "0" * 32)
    world.objects["Job", first] = known
    settle(world, None)
    args = world.objects["Deployment", "chat-serving"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"/volumes/.models/.fetched/s3/models/{'0' * 32}/law" in " ".join(args)


def test_an_adapter_that_was_trained_on_what_is_served() -> None:
    """The training has fetched the same revision into its own storage."""
    world = fetched(changed(FETCHED, adapters=[{"name": "law", "training": {"name": "bilingual", "stage": "legal"}}]))
    source = with_adapter("law")
    result = source["status"]["stages"][-1]["result"]
    del result["baseDigest"]
    result["base"] = f"pvc://elsewhere/.fetched/hf/models/org/name/{COMMIT}"
    settle(world, source)
    assert condition(world, "AdaptersAvailable")["reason"] == "AdapterFound"
    result["base"] = f"pvc://elsewhere/.fetched/hf/models/org/name/{NEXT}"
    step(world, source)
    assert condition(world, "AdaptersAvailable")["reason"] == "BaseDiffers"
    assert f"revision {COMMIT}" in condition(world, "AdaptersAvailable")["message"]


def test_what_a_claim_holds_needs_no_job() -> None:
    assert not LLMServingSpec.model_validate({"model": {"uri": "pvc://models/x"}}).model_cache
    world = scene({"model": {"uri": "pvc://models/x"}})
    settle(world, None)
    assert not world.of("Job")
    assert world.owner["status"]["inputs"] == []
