"""Why the pods of an attempt don't run yet. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llm_operator.api.reasons import Reason
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import Waiting, held_up
from llm_operator.training.manifests import CONTAINER


def waiting_for(pods: Sequence[Manifest], job: Manifest, nodes: int) -> Waiting | None:
    """The first thing that holds the pods up; None if all of them run or have ended."""
    for pod in pods:
        if found := held_up(pod, CONTAINER):
            return found
    if (job.get("spec") or {}).get("suspend"):
        return Waiting(Reason.PENDING, "the Job is suspended: it waits in its queue")
    going = sum((pod.get("status") or {}).get("phase") in ("Running", "Succeeded", "Failed") for pod in pods)
    if going < nodes:
        return Waiting(Reason.STARTING, f"waiting for {nodes} {'pod' if nodes == 1 else 'pods'} to start")
    return None
