"""Whose the fields of an applied object are, by what a real API server has written."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from llm_operator.kube.drift import applied_at, lost_fields, ours
from llm_operator.kube.plan import Manifest

WANTED: Manifest = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "chat", "namespace": "team", "labels": {"a": "b"}},
    "spec": {
        "replicas": 0,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "vllm", "image": "vllm:1", "args": ["--seed=1"], "env": [{"name": "A", "value": ""}],
                        "ports": [{"name": "http", "containerPort": 8000}],
                        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp", "readOnly": False}],
                    }
                ]
            }
        },
    },
}  # fmt: skip
PORT = 'k:{"containerPort":8000,"protocol":"TCP"}'
OURS: dict[str, Any] = {
    "f:metadata": {"f:labels": {"f:a": {}}},
    "f:spec": {
        "f:replicas": {},
        "f:selector": {},
        "f:template": {
            "f:spec": {
                "f:containers": {
                    'k:{"name":"vllm"}': {
                        ".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                        "f:env": {'k:{"name":"A"}': {".": {}, "f:name": {}}},
                        "f:ports": {PORT: {".": {}, "f:name": {}, "f:containerPort": {}}},
                        "f:volumeMounts": {'k:{"mountPath":"/tmp"}': {".": {}, "f:name": {}, "f:mountPath": {}}},
                    }
                }
            }
        },
    },
}  # fmt: skip


def found(ours: dict[str, Any], **others: Any) -> Manifest:
    records = [{"manager": "llm-operator", "operation": "Apply", "time": "2026-01-01T00:00:00Z", "fieldsV1": ours}]
    return {"metadata": {"managedFields": [*records, *others.values()]}}


def without(*keys: str) -> dict[str, Any]:
    """The record when somebody else has taken a field: one that holds nothing more goes with it."""
    made: dict[str, Any] = copy.deepcopy(OURS)
    parents = [made]
    for key in keys[:-1]:
        parents.append(parents[-1][key])
    for parent, key in zip(reversed(parents), reversed(keys), strict=True):
        del parent[key]
        if parent:
            break
    return made


def test_all_that_we_applied_is_ours() -> None:
    assert not list(lost_fields(WANTED, found(OURS)))
    assert applied_at(found(OURS)) == 1_767_225_600


CONTAINER = ("f:spec", "f:template", "f:spec", "f:containers", 'k:{"name":"vllm"}')


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        (("f:spec", "f:replicas"), "spec.replicas"),
        (("f:spec", "f:selector"), "spec.selector"),
        (("f:metadata", "f:labels", "f:a"), "metadata"),
        ((*CONTAINER, "f:image"), "spec.template.spec.containers[vllm].image"),
        ((*CONTAINER, "f:env", 'k:{"name":"A"}'), "spec.template.spec.containers[vllm].env"),
        (CONTAINER, "spec.template"),
    ],
)
def test_what_somebody_has_changed(keys: tuple[str, ...], path: str) -> None:
    [lost] = lost_fields(WANTED, found(without(*keys)))
    assert (lost.path, lost.manager) == (path, "")


def test_what_is_ours_of_an_object() -> None:
    """As our last apply was: without defaults, without what others have added, without what they have taken."""
    there = copy.deepcopy(WANTED)
    there["metadata"] |= {"uid": "1", "labels": {"a": "b", "cost": "42"}, **found(OURS)["metadata"]}
    there["status"] = {"replicas": 1}
    spec = there["spec"]["template"]["spec"]
    spec["restartPolicy"] = "Always"
    [container] = spec["containers"]
    container["imagePullPolicy"], container["ports"][0]["protocol"] = "Always", "TCP"
    container["ports"].append({"name": "grpc", "containerPort": 8001, "protocol": "TCP"})
    del container["env"][0]["value"], container["volumeMounts"][0]["readOnly"]  # the API server keeps neither
    spec["containers"] = [{"name": "mesh", "image": "mesh:1"}, container]
    wanted = copy.deepcopy(WANTED)
    [kept] = wanted["spec"]["template"]["spec"]["containers"]
    del kept["env"][0]["value"], kept["volumeMounts"][0]["readOnly"]
    assert ours(there) == wanted
    there["metadata"] |= found(without(*CONTAINER, "f:image"))["metadata"]
    del kept["image"]
    assert ours(there) == wanted
    assert ours({"metadata": {}}) == {}


def test_who_has_changed_it() -> None:
    edit = {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {"f:x": {}}}}}
    scale = {"manager": "kube-controller-manager", "operation": "Update", "subresource": "scale",
             "fieldsV1": {"f:spec": {"f:replicas": {}}}}  # fmt: skip
    [lost] = lost_fields(WANTED, found(without("f:spec", "f:replicas"), edit=edit, scale=scale))
    assert lost.manager == "kube-controller-manager (scale)"


def test_an_object_that_was_never_applied_is_not_ours() -> None:
    paths = {lost.path for lost in lost_fields(WANTED, {"metadata": {}})}
    assert paths == {"metadata", "spec"}
    assert applied_at({"metadata": {}}) is None
