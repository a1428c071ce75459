"""Reads pods: where they are, what holds them up, how their containers stand. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_operator.api.reasons import Reason
from llm_operator.kube.plan import Manifest

PULL_PROBLEMS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
CONFIG_PROBLEMS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


@dataclass(frozen=True)
class Waiting:
    """Why something does not run yet."""

    reason: Reason
    message: str


def condition_of(manifest: Manifest, kind: str) -> dict[str, Any] | None:
    """A condition of any object's status."""
    conditions: Sequence[dict[str, Any]] = (manifest.get("status") or {}).get("conditions") or ()
    return next((condition for condition in conditions if condition["type"] == kind), None)


def holds(manifest: Manifest, kind: str) -> bool:
    condition = condition_of(manifest, kind)
    return condition is not None and condition["status"] == "True"


def where(pod: Manifest) -> str:
    node = (pod.get("spec") or {}).get("nodeName")
    return f"pod {pod['metadata']['name']}" + (f" on node {node}" if node else "")


def container_status(pod: Manifest, container: str) -> dict[str, Any]:
    statuses: Sequence[dict[str, Any]] = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((status for status in statuses if status["name"] == container), {})


def container_state(pod: Manifest, container: str, state: str) -> dict[str, Any] | None:
    """``state`` is waiting, running or terminated; None if the container is in another one."""
    found: dict[str, Any] | None = (container_status(pod, container).get("state") or {}).get(state)
    return found


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")[:500]


def without_pod_name(message: str) -> str:
    """Of a pod that could not be made: its name is another one at every try."""
    return re.sub(r'pods "[^"]*" ', "pods ", message)


def held_up(pod: Manifest, container: str) -> Waiting | None:
    """What keeps a pod from starting, other than time."""
    scheduled = condition_of(pod, "PodScheduled")
    if scheduled and scheduled["status"] == "False" and scheduled.get("reason") == "Unschedulable":
        return Waiting(Reason.UNSCHEDULABLE, f"pod {pod['metadata']['name']}: {scheduled.get('message')}")
    waiting = container_state(pod, container, "waiting") or {}
    said = waiting.get("message") or waiting.get("reason")
    if waiting.get("reason") in PULL_PROBLEMS:
        return Waiting(Reason.IMAGE_PULL_FAILED, f"{where(pod)} can't pull its image: {said}")
    if waiting.get("reason") in CONFIG_PROBLEMS:
        return Waiting(Reason.STARTING, f"{where(pod)}: {waiting['reason']}: {said}")
    return None
