"""Which pod `kubectl llm report` reads in, and the one that it makes."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_llm.kubectl import PluginError
from kubectl_llm.report import mount_of, place, reader, why

TRAINING: dict[str, Any] = {
    "apiVersion": "llm-operator.io/v1alpha1", "kind": "LLMTraining", "metadata": {"name": "a" * 63, "uid": "u"},
    "spec": {}, "status": {"runUri": "pvc://models/runs/chat-1"},
}  # fmt: skip
TEMPLATE: dict[str, Any] = {
    "securityContext": {"runAsUser": 7, "fsGroup": 8}, "imagePullSecrets": [{"name": "s"}],
    "containers": [{"name": "trainer", "image": "ours:1", "securityContext": {"readOnlyRootFilesystem": True},
                    "resources": {"limits": {"nvidia.com/gpu": 8}},
                    "volumeMounts": [{"name": "v", "mountPath": "/volumes/models/run", "subPath": "run"},
                                     {"name": "v", "mountPath": "/volumes/models", "readOnly": True}]}],
    "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "models"}}],
}  # fmt: skip


def test_where_the_run_folder_is() -> None:
    assert place(TRAINING) == ("models", "runs/chat-1")
    assert mount_of(TEMPLATE, "models") == ("trainer", "/volumes/models"), "not a part of the claim"
    assert mount_of(TEMPLATE, "other") is None


def test_the_pod_is_like_those_that_were_let_in_and_takes_no_gpu() -> None:
    pod = reader(TRAINING, "models", TEMPLATE, None)
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"] == TEMPLATE["securityContext"], "the claim's files are this group's"
    assert spec["imagePullSecrets"] == [{"name": "s"}]
    assert (container["image"], container["securityContext"]) == ("ours:1", {"readOnlyRootFilesystem": True})
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    assert len(pod["metadata"]["name"]) <= 63
    assert reader(TRAINING, "models", TEMPLATE, "mine:2")["spec"]["containers"][0]["image"] == "mine:2"
    with pytest.raises(PluginError, match="--image"):
        reader(TRAINING, "models", None, None)


def test_why_a_pod_does_not_start() -> None:
    waiting = {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such"}}}]}
    unschedulable = {"conditions": [{"status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]}
    assert why({"status": waiting}) == "ImagePullBackOff: no such"
    assert why({"status": unschedulable}) == "Unschedulable: 0/2 nodes"
    assert why({}) == "it is gone"
