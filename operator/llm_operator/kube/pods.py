"""Reads pods: where they are, what holds them up, how their containers stand. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from llm_operator.api.conditions import seconds_of
from llm_operator.api.reasons import Reason
from llm_operator.kube.plan import Manifest
from llm_trainer.protocol import Termination

PULL_PROBLEMS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
CONFIG_PROBLEMS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


@dataclass(frozen=True)
class Waiting:
    """Why something does not run yet."""

    reason: Reason
    message: str


def condition_of(manifest: Manifest, kind: str) -> dict[str, Any] | None:
    """A condition of any object's status. One that somebody has written in half is none."""
    conditions = (manifest.get("status") or {}).get("conditions")
    listed = conditions if isinstance(conditions, list) else ()
    whole = (condition for condition in listed if isinstance(condition, dict) and "status" in condition)
    return next((condition for condition in whole if condition.get("type") == kind), None)


def holds(manifest: Manifest, kind: str) -> bool:
    condition = condition_of(manifest, kind)
    return condition is not None and condition["status"] == "True"


def where(pod: Manifest) -> str:
    node = (pod.get("spec") or {}).get("nodeName")
    return f"pod {pod['metadata']['name']}" + (f" on node {node}" if node else "")


def container_status(pod: Manifest, container: str) -> dict[str, Any]:
    statuses: Sequence[dict[str, Any]] = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((status for status in statuses if status.get("name") == container), {})


def container_state(pod: Manifest, container: str, state: str) -> dict[str, Any] | None:
    """``state`` is waiting, running or terminated; None if the container is in another one, or its end has no code."""
    found: dict[str, Any] | None = (container_status(pod, container).get("state") or {}).get(state)
    return None if state == "terminated" and found is not None and "exitCode" not in found else found


def seconds_between(ended: Mapping[str, object]) -> float | None:
    """From a container's start to its end, as its kubelet tells both in whole seconds."""
    start, end = (seconds_of(str(ended.get(moment))) for moment in ("startedAt", "finishedAt"))
    return end - start if 0 < start <= end else None


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")[:500]


def without_pod_name(message: str) -> str:
    """Of a pod that could not be made: its name is another one at every try."""
    return re.sub(r'pods "[^"]*" ', "pods ", message)


def is_leaving(manifest: Manifest) -> bool:
    """It is being deleted."""
    return "deletionTimestamp" in manifest["metadata"]


def phase_of(pod: Manifest) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def names_claim(waiting: Waiting) -> bool:
    """The scheduler waits for a volume."""
    return waiting.reason == Reason.UNSCHEDULABLE and "PersistentVolumeClaim" in waiting.message


def held_up(pod: Manifest, container: str) -> Waiting | None:
    """What keeps a pod from starting, other than time."""
    scheduled = condition_of(pod, "PodScheduled") or {}
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Waiting(Reason.UNSCHEDULABLE, f"pod {pod['metadata']['name']}: {scheduled.get('message')}")
    if scheduled.get("status") == "False" and scheduled.get("reason") == "SchedulingGated":
        gates = ", ".join(gate["name"] for gate in (pod.get("spec") or {}).get("schedulingGates") or ())
        said = f"pod {pod['metadata']['name']} may be scheduled when its gate is removed: {gates or 'it has no name'}"
        return Waiting(Reason.SCHEDULING_GATED, said)
    if any(container_state(pod, container, state) is not None for state in ("running", "terminated")):
        return None
    return held_up_by_init_container(pod, container) or held_up_container(container_status(pod, container), where(pod))


def held_up_container(status: Mapping[str, Any], who: str) -> Waiting | None:
    """``who`` says which container of which pod."""
    waiting = (status.get("state") or {}).get("waiting") or {}
    said = waiting.get("message") or waiting.get("reason")
    if waiting.get("reason") in PULL_PROBLEMS:
        return Waiting(Reason.IMAGE_PULL_FAILED, f"{who} can't pull its image: {said}")
    if waiting.get("reason") in CONFIG_PROBLEMS:
        return Waiting(Reason.STARTING, f"{who}: {waiting['reason']}: {said}")
    return None


# --- init containers: of admission webhooks, the pods of ours have none ----------------------------------------------


def held_up_by_init_container(pod: Manifest, container: str) -> Waiting | None:
    """The init container that the others wait for: they start one after another."""
    runs = None
    for status in init_statuses(pod):
        state = status.get("state") or {}
        who = f"{where(pod)}, init container {status['name']}"
        if "running" in state:
            runs = Waiting(Reason.STARTING, f"{who} runs, and the container {container} waits for it")
        elif found := held_up_container(status, who):
            return found
        elif (end := ended_state(status)) and end.get("exitCode"):
            return Waiting(Reason.INIT_CONTAINER_FAILED, f"{who}, {terminated_text(end)}")
    # A sidecar runs on: then what comes after it does not wait.
    waiting = container_state(pod, container, "waiting") or {}
    return runs if waiting.get("reason") == "PodInitializing" else None


def ended_state(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How a container ended, now or before its last restart."""
    ended: Mapping[str, Any] | None
    ended = (status.get("state") or {}).get("terminated") or (status.get("lastState") or {}).get("terminated")
    return ended


def failed_init_container(pod: Manifest) -> Mapping[str, Any] | None:
    """The status of the one that ended badly and is not tried again."""
    for status in init_statuses(pod):
        end = (status.get("state") or {}).get("terminated")
        if end and end.get("exitCode"):
            return status
    return None


def init_statuses(pod: Manifest) -> Sequence[Mapping[str, Any]]:
    statuses: Sequence[Mapping[str, Any]] = (pod.get("status") or {}).get("initContainerStatuses") or ()
    return [status for status in statuses if "name" in status]


def terminated_text(end: Mapping[str, Any]) -> str:
    """How a container ended that has no last words but its log's."""
    message = str(end.get("message") or "")
    with suppress(ValidationError):
        message = Termination.model_validate_json(message).message  # of a container of ours
    said = last_line(message) or end.get("reason") or "no message"
    return f"exit code {end.get('exitCode')}: {said}"
