"""What can't work says why, by name, and takes no more than it must."""

from __future__ import annotations

import pytest

from tests.e2e.specs import REQUESTS, TRAINING
from tests.e2e.user import Manifest, User, condition
from tests.specs import changed

BAD_DATA = {
    "no-file": {"data__sources__0__uri": "pvc://corpus/nothing-*.jsonl"},
    "no-json": {"data__sources__0__uri": "pvc://corpus/broken.jsonl"},
    "no-columns": {"stages__1__sft__dataset__uri": "pvc://corpus/columns.jsonl"},
}
CANNOT_START: dict[str, Manifest] = {
    "no-image": {"image": "registry.test/nowhere:1"},
    "too-big": {"resources": {"requests": {"cpu": "100"}}},
    "no-secret": {
        "data__sources__0__uri": "s3://corpora/news.jsonl",
        "credentials": [{"secretName": "unmade", "for": "s3://corpora"}],
    },
}


@pytest.fixture(scope="module", autouse=True)
def applied(user: User) -> None:
    """All at once: each waits for the cluster, and none for another."""
    (user.folder("corpus") / "broken.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    (user.folder("corpus") / "columns.jsonl").write_text('{"question": "?", "answer": "!"}\n')
    for name, change in {**BAD_DATA, **CANNOT_START}.items():
        user.apply("LLMTraining", name, changed(TRAINING, **change))


def pods_of(user: User, name: str) -> list[str]:
    return user.kubectl.run("get", "pods", "-l", f"llm-operator.io/training={name}", "-o", "name").split()


def test_a_missing_claim_is_waited_for(user: User) -> None:
    user.apply("LLMTraining", "no-claim", changed(TRAINING, data__sources__0__uri="pvc://nowhere/x.jsonl"))
    status = user.until("waits", "llmtraining", "no-claim", lambda s: condition(s, "Running"))
    assert condition(status, "Running")["reason"] == "PersistentVolumeClaimNotFound"
    assert "nowhere" in condition(status, "Running")["message"]
    assert pods_of(user, "no-claim") == []
    user.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "nowhere", "namespace": user.namespace},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "none",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
    )
    status = user.until(
        "goes on", "llmtraining", "no-claim", lambda s: condition(s, "Running")["reason"] == "Unschedulable"
    )
    assert "unbound" in condition(status, "Running")["message"]
    user.kubectl.run("delete", "llmtraining", "no-claim")


def bad_data(user: User, name: str) -> str:
    """The message with which a training fails in its data stage, before any other pod is made."""
    status = user.until("fails", "llmtraining", name, lambda s: s["phase"] == "Failed")
    assert condition(status, "Failed")["reason"] in ("DataError", "ConfigurationError")
    assert len(status["stages"][0]["attempts"]) == 1
    assert all("-data-" in pod for pod in pods_of(user, name))
    return str(condition(status, "Failed")["message"])


def test_a_source_that_matches_no_file(user: User) -> None:
    said = bad_data(user, "no-file")
    assert "nothing-*.jsonl" in said


def test_a_line_that_is_no_json(user: User) -> None:
    said = bad_data(user, "no-json")
    assert "broken.jsonl" in said
    assert "2" in said


def test_a_dataset_without_its_columns_stops_before_pretraining(user: User) -> None:
    said = bad_data(user, "no-columns")
    assert "columns.jsonl" in said
    assert "messages" in said


@pytest.mark.parametrize(
    ("name", "reason", "says"),
    [
        ("no-image", "ImagePullFailed", "registry.test/nowhere:1"),
        ("too-big", "Unschedulable", "Insufficient cpu"),
        ("no-secret", "FailedMount", 'secret "unmade" not found'),
    ],
)
def test_pods_that_cannot_start(user: User, name: str, reason: str, says: str) -> None:
    status = user.until(reason, "llmtraining", name, lambda s: condition(s, "Running").get("reason") == reason)
    assert says in condition(status, "Running")["message"]
    user.kubectl.run("delete", "llmtraining", name)


def test_pods_that_a_quota_refuses(user: User) -> None:
    quota = {"name": "none-left", "namespace": user.namespace}
    user.kubectl.apply(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": quota, "spec": {"hard": {"limits.cpu": "1"}}}
    )
    user.apply("LLMTraining", "no-quota", TRAINING)
    status = user.until(
        "tells", "llmtraining", "no-quota", lambda s: condition(s, "Running").get("reason") == "FailedCreate"
    )
    assert "quota" in condition(status, "Running")["message"]
    assert "none-left" in condition(status, "Running")["message"]
    user.kubectl.run("delete", "resourcequota/none-left", "llmtraining/no-quota")


def test_a_serving_says_what_it_waits_for(user: User) -> None:
    user.apply("LLMServing", "lost", {"model": {"training": {"name": "nowhere"}}, "resources": REQUESTS})
    status = user.until("waits", "llmserving", "lost", lambda s: condition(s, "ModelAvailable"))
    assert condition(status, "ModelAvailable")["reason"] == "TrainingNotFound"
    assert "nowhere" in condition(status, "ModelAvailable")["message"]
    user.apply("LLMServing", "early", {"model": {"training": {"name": "no-json"}}, "resources": REQUESTS})
    status = user.until("tells", "llmserving", "early", lambda s: condition(s, "ModelAvailable"))
    assert condition(status, "ModelAvailable")["reason"] == "TrainingFailed"
    deployments = user.kubectl.run("get", "deployments", "-o", "name")
    assert deployments == ""
