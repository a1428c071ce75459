"""What all pods of ours have in common: owner, labels, placement, the restricted security profile. Pure."""

from __future__ import annotations

from typing import Any

from llm_operator.api.common import PodSettings
from llm_operator.api.resources import Resources
from llm_operator.kube.plan import Manifest

USER = 10001
POD_SECURITY: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
SCRATCH_VOLUMES: list[dict[str, Any]] = [
    {"name": "tmp", "emptyDir": {}},
    {"name": "shm", "emptyDir": {"medium": "Memory"}},
]
SCRATCH_MOUNTS: list[dict[str, Any]] = [
    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 -- the pod's own emptyDir
    {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
]


def owner_reference(owner: Manifest) -> dict[str, Any]:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,  # would need the right to update the owner's finalizers
    }


def resource_requirements(resources: Resources) -> dict[str, Any]:
    fields = {"limits": resources.limits, "requests": resources.requests}
    return {field: dict(quantities) for field, quantities in fields.items() if quantities}


def variables(fixed: dict[str, str], pods: PodSettings) -> list[dict[str, Any]]:
    """Environment variables; the user's win."""
    merged = fixed | {variable.name: variable.value for variable in pods.env}
    return [{"name": name, "value": value} for name, value in merged.items()]


def placement(pods: PodSettings) -> dict[str, Any]:
    """The part of a pod template that places it, as the user wants it."""
    fields = {
        "nodeSelector": pods.node_selector,
        "tolerations": pods.tolerations,
        "affinity": pods.affinity,
        "priorityClassName": pods.priority_class_name,
        "imagePullSecrets": [{"name": secret} for secret in pods.image_pull_secrets],
    }
    return {name: value for name, value in fields.items() if value}
