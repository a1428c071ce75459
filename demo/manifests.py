"""What the demo puts beside the operator: two claims and a pod through which text goes in and figures come out."""

from __future__ import annotations

from typing import Any

CORPUS_CLAIM, MODELS_CLAIM, LOADER = "corpus", "models", "loader"


def namespace(name: str) -> dict[str, Any]:
    """Under the strictest of Kubernetes' pod security standards, which all our pods meet."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def claim(name: str, storage_class: str | None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            **({"storageClassName": storage_class} if storage_class else {}),
            "resources": {"requests": {"storage": "10Gi"}},
        },
    }


def loader(image: str) -> dict[str, Any]:
    """A pod that sleeps, with both claims mounted at /volumes/CLAIM as in every training pod."""
    claims = (CORPUS_CLAIM, MODELS_CLAIM)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": LOADER},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "runAsGroup": 10001,
                "fsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "loader",
                    "image": image,
                    "command": ["sleep", "86400"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                    "volumeMounts": [{"name": name, "mountPath": f"/volumes/{name}"} for name in claims],
                }
            ],
            "volumes": [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims],
        },
    }
