"""The cache: whatever the order of watch events and answers to writes, the newest state stays."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from llm_operator.kube import labels
from llm_operator.kube.cache import REMEMBERED_DELETIONS, Cache, trim
from llm_operator.kube.kinds import CLAIM, CONFIG_MAP, JOB, KINDS, POD, SERVICE, SERVING, TRAINING
from llm_operator.kube.plan import Key

OWNER = Key("LLMTraining", "team", "chat")


def manifest(name: str = "chat", uid: str = "u1", version: int = 1, **fields: Any) -> dict[str, Any]:
    metadata = {"namespace": "team", "name": name, "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata | fields.pop("metadata", {}), **fields}


def child(name: str, version: int = 1, owner_uid: str = "u1") -> dict[str, Any]:
    reference = {"apiVersion": TRAINING.api_version, "kind": "LLMTraining", "name": "chat", "uid": owner_uid}
    metadata = {"labels": {labels.TRAINING: "chat"}, "ownerReferences": [reference]}
    return manifest(name, f"uid-{name}", version, metadata=metadata)


def reference_to(kind: str, name: str, api_version: str) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "name": name, "uid": f"uid-{name}", "controller": True}


@given(st.permutations(range(1, 9)))
def test_the_newest_version_stays_whatever_the_order(order: list[int]) -> None:
    cache = Cache()
    for version in order:
        cache.put("LLMTraining", manifest(version=version))
    found = cache.get("LLMTraining", "team", "chat")
    assert found is not None
    assert found["metadata"]["resourceVersion"] == "8"


@given(st.permutations(["put 1", "put 2", "delete 3", "put 2"]))
def test_a_deleted_uid_never_comes_back(order: list[str]) -> None:
    cache = Cache()
    for step in order:
        verb, version = step.split()
        (cache.put if verb == "put" else cache.remove)("LLMTraining", manifest(version=int(version)))
    assert cache.get("LLMTraining", "team", "chat") is None


def test_an_old_deletion_leaves_the_successor_of_the_same_name() -> None:
    cache = Cache()
    cache.put("LLMTraining", manifest(uid="u1", version=1))
    assert cache.put("LLMTraining", manifest(uid="u2", version=5))
    assert not cache.remove("LLMTraining", manifest(uid="u1", version=4))
    found = cache.get("LLMTraining", "team", "chat")
    assert found is not None
    assert found["metadata"]["uid"] == "u2"


def test_the_same_version_again_is_no_news() -> None:
    cache = Cache()
    assert cache.put("LLMTraining", manifest(version=3))
    assert not cache.put("LLMTraining", manifest(version=3))


def test_versions_are_compared_as_numbers() -> None:
    cache = Cache()
    cache.put("LLMTraining", manifest(version=9))
    assert cache.put("LLMTraining", manifest(version=10))


def test_children_come_by_name_and_without_those_of_an_earlier_owner() -> None:
    cache = Cache()
    cache.put("LLMTraining", manifest(uid="u1"))
    for job in (child("b"), child("a"), child("stale", owner_uid="u0")):
        cache.put("Job", job)
    labelled = {"labels": {labels.TRAINING: "chat"}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "name": "a", "uid": "uid-a", "controller": True}
    cache.put("Pod", manifest("a-0", "uid-pod", metadata={**labelled, "ownerReferences": [job]}))
    for kind in ("Job", "Pod", "ConfigMap"):
        cache.put(kind, manifest("copy", f"uid-{kind}-copy", metadata=labelled))  # by hand, with the labels
    assert cache.children("ConfigMap", OWNER) == []
    assert [job["metadata"]["name"] for job in cache.children("Job", OWNER)] == ["a", "b"]
    assert len(cache.children("Pod", OWNER)) == 1
    assert cache.children("Job", Key("LLMTraining", "other-team", "chat")) == []


def test_a_child_that_lost_its_owner_is_no_child() -> None:
    cache = Cache()
    cache.put("LLMTraining", manifest())
    cache.put("Job", child("a", version=1))
    pod = manifest("a-0", "uid-pod", metadata={"ownerReferences": [reference_to("Job", "a", "batch/v1")]})
    cache.put("Pod", pod)
    assert len(cache.children("Pod", OWNER)) == 1
    cache.put("Job", manifest("a", "uid-a", 2, metadata={"labels": {labels.TRAINING: "chat"}}))
    assert cache.children("Job", OWNER) == cache.children("Pod", OWNER) == []
    cache.remove("Job", manifest("a", "uid-a", 3))
    cache.remove("Pod", pod)
    assert not cache._below
    assert not cache._jobs
    assert not cache._owner_of_job


def test_pods_of_a_deleted_job_are_told_of_and_belong_to_its_training() -> None:
    """Their last words come after the Job is gone."""
    cache = Cache()
    cache.put("LLMTraining", manifest())
    cache.put("Job", child("a"))
    pod = manifest("a-0", "uid-pod", metadata={"ownerReferences": [reference_to("Job", "a", "batch/v1")]})
    cache.put("Pod", pod)
    cache.remove("Job", child("a"))
    assert [pod["metadata"]["name"] for pod in cache.children("Pod", OWNER)] == ["a-0"]
    cache.remove("Pod", pod)
    assert cache.children("Pod", OWNER) == []
    assert cache.owner(pod) == OWNER


@pytest.mark.parametrize(
    ("pod_of", "hash_label", "found"),
    [("chat-serving-7f", "7f", True), ("chat-serving-7f", "8e", False), ("other-7f", "7f", False), ("7f", "7f", False)],
)
def test_pods_of_a_serving_belong_to_its_deployment(pod_of: str, hash_label: str, found: bool) -> None:
    """Labels are copied with a template; the ReplicaSet is the Deployment's, whose reference has the uid."""
    owner = Key("LLMServing", "team", "chat")
    cache = Cache()
    cache.put("LLMServing", manifest())
    reference = {"apiVersion": SERVING.api_version, "kind": "LLMServing", "name": "chat", "uid": "u1"}
    cache.put("Deployment", manifest("chat-serving", "uid-d", metadata={"ownerReferences": [reference]}))
    metadata = {
        "labels": {labels.SERVING: "chat", "pod-template-hash": hash_label},
        "ownerReferences": [reference_to("ReplicaSet", pod_of, "apps/v1")],
    }
    pod = manifest("p", "uid-p", metadata=metadata)
    cache.put("Pod", pod)
    assert bool(cache.children("Pod", owner)) is found
    assert (cache.owner(pod) == owner) is found


def test_a_pod_of_somebody_elses_job_with_our_labels_is_no_child() -> None:
    cache = Cache()
    cache.put("LLMTraining", manifest())
    job = manifest("theirs", "uid-theirs", metadata={"labels": {labels.TRAINING: "chat"}})
    cache.put("Job", job)
    metadata = {"labels": {labels.TRAINING: "chat"}, "ownerReferences": [reference_to("Job", "theirs", "batch/v1")]}
    cache.put("Pod", manifest("theirs-0", "uid-pod", metadata=metadata))
    assert cache.children("Job", OWNER) == cache.children("Pod", OWNER) == []


def test_the_jobs_of_deleted_ones_are_forgotten_with_them() -> None:
    cache = Cache()
    for number in range(REMEMBERED_DELETIONS + 5):
        made = child(f"j{number}", version=number + 1)
        cache.put("Job", made)
        cache.remove("Job", made)
    assert len(cache._owner_of_job) == len(cache._jobs["team", "u1"]) == REMEMBERED_DELETIONS


def test_a_cluster_that_went_back_in_time_is_believed() -> None:
    cache = Cache()
    cache.put("Job", child("kept", version=900))
    cache.put("Job", child("deleted", version=901))
    cache.remove("Job", child("deleted", version=902))
    cache.clear("Job", "team")
    assert not list(cache.objects("Job"))
    assert cache.put("Job", child("kept", version=100))
    assert cache.put("Job", child("deleted", version=101))


def test_a_complete_list_removes_what_it_lacks_but_not_what_is_newer() -> None:
    cache = Cache()
    for name, version in (("kept", 1), ("gone", 2), ("new", 20)):
        cache.put("Job", manifest(name, f"uid-{name}", version))
    gone = cache.keep_only("Job", None, ["uid-kept"], as_of=10)
    assert [job["metadata"]["name"] for job in gone] == ["gone"]
    assert {job["metadata"]["name"] for job in cache.objects("Job")} == {"kept", "new"}


def test_a_list_of_one_namespace_says_nothing_of_another() -> None:
    cache = Cache()
    cache.put("Job", manifest("a", "uid-a"))
    assert cache.keep_only("Job", "other-team", [], as_of=10) == []


@pytest.mark.parametrize(
    ("kind", "given", "kept"),
    [
        (CLAIM, {"spec": {"accessModes": ["ReadWriteOnce"], "x": 1}, "status": {"phase": "Bound", "capacity": {}}},
             {"spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Bound"}}),
        (CONFIG_MAP, {"data": {"stage.json": "{}"}, "immutable": True}, {}),
        (JOB, {"spec": {"parallelism": 2, "template": {"spec": {}}}, "status": {"active": 2}},
         {"spec": {"parallelism": 2}, "status": {"active": 2}}),
        (POD, {"spec": {"nodeName": "n1", "containers": [{}]}, "status": {"phase": "Running", "qosClass": "Burstable"}},
         {"spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}),
        (SERVICE, {"spec": {"clusterIP": "None"}, "status": {}}, {}),
    ],
)  # fmt: skip
def test_only_what_is_used_is_kept(kind: Any, given: dict[str, Any], kept: dict[str, Any]) -> None:
    trimmed = trim(kind, manifest(metadata={"managedFields": [{}], "selfLink": "x"}, **given))
    assert {key: value for key, value in trimmed.items() if key not in ("metadata", "kind", "apiVersion")} == kept
    assert set(trimmed["metadata"]) == {"name", "namespace", "uid", "resourceVersion"}
    assert (trimmed["kind"], trimmed["apiVersion"]) == (kind.name, kind.api_version)


def test_whose_the_fields_are_is_kept_of_what_we_apply() -> None:
    records = [{"manager": "kubectl", "operation": "Update"}, {"manager": "llm-operator", "operation": "Apply"}]
    assert trim(SERVICE, manifest(metadata={"managedFields": records}))["metadata"]["managedFields"] == records
    assert "managedFields" not in trim(SERVICE, manifest(metadata={"managedFields": records[:1]}))["metadata"]


def test_the_cache_keeps_a_copy() -> None:
    cache = Cache()
    given = manifest(spec={"nodes": 1})
    cache.put("LLMTraining", given)
    given["spec"]["nodes"] = 2
    found = cache.get("LLMTraining", "team", "chat")
    assert found is not None
    assert found["spec"]["nodes"] == 1


def test_every_kind_knows_its_path() -> None:
    assert KINDS["Pod"].path("team", "a") == "/api/v1/namespaces/team/pods/a"
    assert KINDS["LLMTraining"].path() == "/apis/llm-operator.io/v1alpha1/llmtrainings"
    assert KINDS["LLMTraining"].path("team", "a", "status").endswith("/namespaces/team/llmtrainings/a/status")


def test_another_namespace_s_objects_are_nobody_s_children() -> None:
    """Whoever knows a uid can write it into an owner reference in a namespace of his own, and the name too."""
    cache = Cache()
    cache.put("LLMTraining", manifest())
    job = child("chat-base-1")
    cache.put(JOB.name, job)
    pod = manifest(
        "chat-base-1-0", "uid-pod", metadata={"ownerReferences": [reference_to("Job", "chat-base-1", "batch/v1")]}
    )
    cache.put(POD.name, pod)

    def theirs(mine: dict[str, Any], uid: str) -> dict[str, Any]:
        return {**mine, "metadata": {**mine["metadata"], "namespace": "enemy", "uid": uid, "resourceVersion": "5"}}

    same = (theirs(job, "e1"), theirs(pod, "e2"))
    for kind, enemy in zip((JOB.name, POD.name), same, strict=True):
        cache.put(kind, enemy)
        assert cache.owner(enemy) != OWNER
        assert [found["metadata"]["namespace"] for found in cache.children(kind, OWNER)] == ["team"]
    assert cache.job_uids(OWNER) == ["uid-chat-base-1"]
    other = theirs(child("other"), "e3")
    cache.put(JOB.name, other)
    assert len(cache.children(JOB.name, OWNER)) == 1, "a name that the namespace of the owner doesn't have"
    for kind, enemy in zip((JOB.name, POD.name), same, strict=True):
        cache.remove(kind, enemy)
        assert len(cache.children(kind, OWNER)) == 1, "theirs are gone, ours are not"
    assert cache.owner(pod) == OWNER
