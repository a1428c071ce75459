"""A Job of one pod that does something once: fetching, publishing, an index, an evaluation. Pure."""

from __future__ import annotations

from typing import Any

from llm_operator.kube.plan import Manifest
from llm_operator.kube.templates import CONTAINER_SECURITY, POD_SECURITY
from llm_trainer.protocol import ExitCode

FOR_GOOD = (ExitCode.DATA, ExitCode.CONFIGURATION)  # no try mends them


def single_job(metadata: dict[str, Any], template: Manifest, tries: int) -> Manifest:
    """It is tried again after what may pass by; a pod that is taken away is no try. ``template``: of one container."""
    (container,) = template["spec"]["containers"]
    ending = {"containerName": container["name"], "operator": "In", "values": [*map(int, FOR_GOOD)]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": tries - 1,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onExitCodes": ending},
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": template,
        },
    }


def single_pod(container: dict[str, Any], volumes: list[dict[str, Any]]) -> dict[str, Any]:
    """What its pod is. It asks nothing of the API server."""
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        "containers": [container],
        "volumes": volumes,
    }


def module_container(
    name: str,
    image: str,
    module: str,
    environment: list[dict[str, Any]],
    resources: dict[str, Any],
    mounts: list[dict[str, Any]],
) -> dict[str, Any]:
    """That runs a Python module. Its end tells the last lines of the log where the module has told nothing."""
    return {
        "name": name,
        "image": image,
        "command": ["python", "-m", module],
        "env": environment,
        "resources": resources,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": mounts,
    }
