"""Why the pods of an attempt don't run yet. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llm_operator.api.reasons import Reason
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import Waiting, held_up
from llm_operator.training.manifests import CONTAINER


def waiting_for(pods: Sequence[Manifest], job: Manifest, failed_create: str = "") -> Waiting | None:
    """The first thing that holds the pods up; None if all of them run or have ended."""
    for pod in pods:
        if found := held_up(pod, CONTAINER):
            return found
    if is_suspended(job):
        return Waiting(Reason.PENDING, "the Job is suspended: it waits in its queue")
    if failed_create:
        return Waiting(Reason.FAILED_CREATE, failed_create)
    nodes = job["spec"]["completions"]
    going = sum((pod.get("status") or {}).get("phase") in ("Running", "Succeeded", "Failed") for pod in pods)
    return pods_to_start(nodes) if going < nodes else None


def pods_to_start(nodes: int) -> Waiting:
    return Waiting(Reason.STARTING, f"waiting for {nodes} {'pod' if nodes == 1 else 'pods'} to start")


def is_suspended(job: Manifest) -> bool:
    """By a queue such as Kueue, which takes the pods away and gives them back: nobody's fault, and ours to wait."""
    return bool((job.get("spec") or {}).get("suspend"))
