"""Why the pods of an attempt don't run yet. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from llm_operator.api.reasons import Reason
from llm_operator.api.training_status import AttemptStatus
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import Waiting, held_up, names_claim, phase_of, where
from llm_operator.training.gang import Gang, has_ended, over_fact, starting_fact
from llm_operator.training.manifests import CONTAINER
from llm_operator.training.patience import GRACE_SECONDS

MISSING_LOOK_SECONDS = 10.0
START_SECONDS = 10.0  # in which a kubelet starts a pod that needs no image, or tells what is in its way
LEAVING_SECONDS = 60.0  # beyond a pod's grace period, for its kubelet to say that it has ended


@dataclass(frozen=True)
class Trouble:
    """What the newest warning says of an object; all empty: there is none."""

    kind: str = ""
    name: str = ""
    reason: str = ""
    note: str = ""


NO_TROUBLE = Trouble()
VOLUME_TROUBLES = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")


def waiting_for(gang: Gang, job: Manifest, trouble: Trouble = NO_TROUBLE) -> Waiting | None:
    """The first thing that holds the pods up; None if all of them run or have ended."""
    for pod in gang.living:
        if found := held_up(pod, CONTAINER):
            return with_claim(found, trouble)
    if is_suspended(job):
        return Waiting(Reason.PENDING, "the Job is suspended: it waits in its queue")
    if trouble.kind == "Job" and len(gang.living) < gang.nodes:
        return Waiting(Reason.FAILED_CREATE, trouble.note)
    going = [pod for pod in gang.living if phase_of(pod) in ("Running", "Succeeded", "Failed")]
    if len(going) >= gang.nodes:
        return None
    stuck = next((pod for pod in gang.living if pod not in going and pod["metadata"]["name"] == trouble.name), None)
    if stuck:
        reason = Reason.FAILED_MOUNT if trouble.reason in VOLUME_TROUBLES else Reason.STARTING
        return Waiting(reason, f"{where(stuck)}: {trouble.reason}: {trouble.note}")
    if leaving := gang.leaving:
        return Waiting(Reason.TERMINATING, f"{where(leaving[0])} is being deleted and has not ended yet")
    return pods_to_start(gang.nodes)


def with_claim(waiting: Waiting, trouble: Trouble) -> Waiting:
    """The scheduler says that a claim is not bound; what is wrong with the claim is told by the claim's own events."""
    if trouble.kind != "PersistentVolumeClaim" or not names_claim(waiting):
        return waiting
    said = f"PersistentVolumeClaim {trouble.name}: {trouble.reason}: {trouble.note}"
    return Waiting(waiting.reason, f"{waiting.message}; {said}")


def look_again(gang: Gang) -> float | None:
    """Seconds until a pod that is not there, or doesn't start, becomes suspicious: no watch tells why."""
    if gang.missing():
        return MISSING_LOOK_SECONDS
    young = [START_SECONDS - age for pod in gang.living if (age := gang.ages.get(starting_fact(pod))) is not None]
    return min((left for left in young if left > 0), default=None)


def pods_to_end(gang: Gang, attempt: AttemptStatus) -> str:
    """Of an attempt that was suspended and commits a checkpoint: until it has, another attempt would keep it from that.

    Empty if nobody is to be waited for, which is bounded by the grace period of the pods: a node may be lost.
    """
    pods = [pod for pod in gang.pods if not has_ended(pod)]
    grace = max((pod["metadata"].get("deletionGracePeriodSeconds", GRACE_SECONDS) for pod in pods), default=0)
    if not pods or gang.age(over_fact(attempt.job)) >= grace + LEAVING_SECONDS:
        return ""
    return f"the pods of attempt {attempt.number} commit a checkpoint and end"


def pods_to_start(nodes: int) -> Waiting:
    return Waiting(Reason.STARTING, f"waiting for {nodes} {'pod' if nodes == 1 else 'pods'} to start")


def is_suspended(job: Manifest) -> bool:
    """By a queue such as Kueue, which takes the pods away and gives them back: nobody's fault, and ours to wait."""
    return bool((job.get("spec") or {}).get("suspend"))
