"""A pod of a test's own: in the trainer image, under the restricted standard, with claims where a stage has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_operator.kube.templates import CONTAINER_SECURITY, POD_SECURITY, SCRATCH_MOUNTS, SCRATCH_VOLUMES
from tests.e2e.user import Manifest


def restricted_pod(
    name: str, image: str, command: Sequence[str], claims: Sequence[str], variables: Mapping[str, str] | None = None
) -> Manifest:
    """Each claim is mounted at `/volumes/CLAIM`."""
    container = {
        "name": name,
        "image": image,
        "command": list(command),
        "env": [{"name": variable, "value": value} for variable, value in (variables or {}).items()],
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [*({"name": claim, "mountPath": f"/volumes/{claim}"} for claim in claims), *SCRATCH_MOUNTS],
    }
    volumes = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": POD_SECURITY,
            "containers": [container],
            "volumes": [*volumes, *SCRATCH_VOLUMES],
        },
    }
