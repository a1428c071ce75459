"""Why the pods of an attempt don't run yet. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_operator.api.reasons import Reason
from llm_operator.kube.plan import Manifest
from llm_operator.training.failures import pod_condition, waiting_state, where

PULL_PROBLEMS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
CONFIG_PROBLEMS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


@dataclass(frozen=True)
class Waiting:
    reason: Reason
    message: str


def waiting_for(pods: Sequence[Manifest], job: Manifest, nodes: int) -> Waiting | None:
    """The first thing that holds the pods up; None if all of them run or have ended."""
    for pod in pods:
        if found := pod_problem(pod):
            return found
    if (job.get("spec") or {}).get("suspend"):
        return Waiting(Reason.PENDING, "the Job is suspended: it waits in its queue")
    going = sum((pod.get("status") or {}).get("phase") in ("Running", "Succeeded", "Failed") for pod in pods)
    if going < nodes:
        return Waiting(Reason.STARTING, f"waiting for {nodes} {'pod' if nodes == 1 else 'pods'} to start")
    return None


def pod_problem(pod: Manifest) -> Waiting | None:
    scheduled = pod_condition(pod, "PodScheduled")
    if scheduled and scheduled["status"] == "False" and scheduled.get("reason") == "Unschedulable":
        return Waiting(Reason.UNSCHEDULABLE, f"pod {pod['metadata']['name']}: {scheduled.get('message')}")
    waiting = waiting_state(pod)
    if waiting and waiting.get("reason") in PULL_PROBLEMS:
        said = waiting.get("message") or waiting["reason"]
        return Waiting(Reason.IMAGE_PULL_FAILED, f"{where(pod)} can't pull its image: {said}")
    if waiting and waiting.get("reason") in CONFIG_PROBLEMS:
        return Waiting(Reason.STARTING, f"{where(pod)}: {waiting['reason']}: {waiting.get('message', '')}")
    return None
