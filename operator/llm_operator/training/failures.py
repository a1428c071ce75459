"""Why an attempt ended, from what the kubelet and the container's last word say. Pure.

Sources: Kubernetes' pod failure conditions (DisruptionTarget) and ``llm_trainer.protocol.ExitCode``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from llm_operator.api.conditions import seconds_of
from llm_operator.api.reasons import Reason
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import (
    Waiting,
    condition_of,
    failed_init_container,
    held_up,
    is_leaving,
    last_line,
    terminated_text,
    where,
)
from llm_operator.training.gang import (
    Gang,
    ended_fact,
    failed_fact,
    has_ended,
    job_condition,
    last_word,
    terminated_state,
)
from llm_operator.training.manifests import CONTAINER
from llm_trainer.protocol import ExitCode

Fault = Literal["Own", "Infrastructure", "Configuration"]
CAUSE_SECONDS = 10.0  # for the pod that caused it to be seen, when only its victims are
CLOCK_SECONDS = 60.0  # a time further than this from when we saw it is of a clock that is wrong
NEVER_WHOLE = (  # a gang that lacked a pod never began: no restart
    Reason.UNSCHEDULABLE,
    Reason.SCHEDULING_GATED,
    Reason.IMAGE_PULL_FAILED,
)

BY_EXIT_CODE: dict[int, tuple[Fault, Reason]] = {
    ExitCode.DATA: ("Configuration", Reason.DATA_ERROR),
    ExitCode.CONFIGURATION: ("Configuration", Reason.CONFIGURATION_ERROR),
    ExitCode.DIVERGED: ("Configuration", Reason.DIVERGED),
    ExitCode.EVALUATION: ("Configuration", Reason.EVALUATION_FAILED),
    ExitCode.STORAGE: ("Infrastructure", Reason.STORAGE_UNREADABLE),
    ExitCode.NO_SPACE: ("Own", Reason.NO_SPACE),
    ExitCode.PREEMPTED: ("Infrastructure", Reason.PREEMPTED),
    ExitCode.HANG: ("Own", Reason.HANG),
    ExitCode.OUT_OF_MEMORY: ("Own", Reason.OUT_OF_MEMORY),
}
BY_DISRUPTION = {
    "PreemptionByScheduler": Reason.PREEMPTED,
    "DeletionByTaintManager": Reason.NODE_LOST,
    "DeletionByPodGC": Reason.NODE_LOST,
}
WHEN_DELETED = (ExitCode.PREEMPTED, 128 + 9, 128 + 15)  # how the container of a pod ends that is deleted


@dataclass(frozen=True)
class Failure:
    """``outside``: the cluster's doing. ``secondary``: only because another pod of the gang is gone."""

    fault: Fault
    reason: Reason
    message: str
    outside: bool = False
    secondary: bool = False
    at: tuple[float, float] = (0.0, 0.0)  # seconds since the epoch by our clock, and as somebody else's has told it


@dataclass(frozen=True)
class Seen:
    """When we first saw a pod's end."""

    at: float

    def time(self, told: str | None) -> tuple[float, float]:
        """By our clock, which is the time that another machine tells unless its clock can't be right; and that time."""
        written = seconds_of(told) if told else self.at
        right = self.at - CLOCK_SECONDS <= written <= self.at
        return (written if right else self.at), written


def failure_of(gang: Gang, now: float) -> Failure | None:
    """Why the gang failed; None if it didn't, or if the cause may still show."""
    pods = (*gang.pods, *gang.departed) if gang.over else tuple(gang.pods)
    found = [(pod, pod_failure(pod, Seen(now - gang.age(ended_fact(pod))))) for pod in pods]
    # A queue that takes pods away and soon gives them back deletes them. The Job then makes others, or else it says
    # that it failed.
    failures = [failure for pod, failure in found if failure and (gang.over or failure.outside or not is_leaving(pod))]
    if causes := [failure for failure in failures if not failure.secondary]:
        return min(causes, key=precedence)
    if not failures:
        return job_failure(gang)
    if waiting := never_started(gang):
        return Failure("Infrastructure", waiting.reason, f"{waiting.message}; the other pods gave up waiting for it")
    seen = max((gang.age(ended_fact(pod)) for pod in gang.pods), default=CAUSE_SECONDS)
    return peer_lost(gang, failures[0]) if seen >= CAUSE_SECONDS else None


def precedence(failure: Failure) -> tuple[bool, bool, tuple[float, float]]:
    """The cause sorts first.

    An eviction or a lost node explains what the others died of, not the other way round. A pod that left when asked to
    was asked because of another's end, whatever the clocks of their nodes say.
    """
    return not failure.outside, failure.reason == Reason.PREEMPTED, failure.at


def never_started(gang: Gang) -> Waiting | None:
    """What keeps a pod of the gang from ever having started."""
    found = (held_up(pod, CONTAINER) for pod in gang.living)
    return next((waiting for waiting in found if waiting and waiting.reason in NEVER_WHOLE), None)


def peer_lost(gang: Gang, victim: Failure) -> Failure:
    """All that is seen is that a pod lost another. A trainer that dies by itself says so, or its kubelet does."""
    silent = [where(pod) for pod in gang.living if not has_ended(pod)]
    if missing := gang.missing():
        what = f"the pod of index {', '.join(map(str, missing))} is gone: it or its node was deleted"
    elif silent:
        what = f"{', '.join(silent)} can't be reached by the others: its node or the network"
    else:
        what = "the pods lost each other: the network between them"
    return Failure("Infrastructure", Reason.PEER_LOST, f"{what}; {victim.message}")


def job_failure(gang: Gang) -> Failure | None:
    """The Job controller says that the Job failed, and no pod says why."""
    condition = job_condition(gang.job, "Failed") if gang.job else None
    if gang.job is None or condition is None:
        return None
    if gang.pods and gang.age(failed_fact(gang.job)) < CAUSE_SECONDS:
        return None
    text = f"the Job failed: {condition.get('message') or condition.get('reason')}; its pods are gone"
    return Failure("Infrastructure", Reason.EVICTED, text)


def pod_failure(pod: Manifest, seen: Seen) -> Failure | None:
    """Why this pod failed; None if it runs, waits or ended well."""
    terminated = terminated_state(pod)
    if terminated and terminated["exitCode"] == 0:
        return None  # whatever became of the pod afterwards
    disruption = condition_of(pod, "DisruptionTarget")
    if disruption and disruption["status"] == "True":
        reason = BY_DISRUPTION.get(disruption.get("reason", ""), Reason.EVICTED)
        text = f"{where(pod)}: {disruption.get('message') or disruption.get('reason')}"
        return Failure("Infrastructure", reason, text, outside=True, at=seen.time(disruption.get("lastTransitionTime")))
    return container_failure(pod, terminated, seen) if terminated else phase_failure(pod, seen)


def phase_failure(pod: Manifest, seen: Seen) -> Failure | None:
    """The pod failed before its container could end: the kubelet refused it or threw it out, or another container."""
    status = pod.get("status") or {}
    if status.get("phase") != "Failed":
        return None
    if init := failed_init_container(pod):
        text = f"{where(pod)}, init container {init['name']}, {terminated_text(init['state']['terminated'])}"
        ended = init["state"]["terminated"].get("finishedAt")
        return Failure("Infrastructure", Reason.INIT_CONTAINER_FAILED, text, outside=True, at=seen.time(ended))
    text = f"{where(pod)}: {status.get('reason', 'failed')}: {status.get('message', '')}".rstrip(": ")
    return Failure("Infrastructure", Reason.EVICTED, text, outside=True, at=seen.time(None))


def container_failure(pod: Manifest, terminated: dict[str, Any], seen: Seen) -> Failure:
    code = int(terminated["exitCode"])
    word = last_word(terminated)
    said = word.message if word else last_line(terminated.get("message", ""))
    text = f"{where(pod)}, container {CONTAINER}, exit code {code}: {said or terminated.get('reason', 'no message')}"
    ended = seen.time(terminated.get("finishedAt"))
    if terminated.get("reason") == "OOMKilled":
        return Failure("Own", Reason.OUT_OF_MEMORY, f"{text}; raise the memory limit", at=ended)
    if code == ExitCode.PEER_LOST:
        return Failure("Own", Reason.ERROR, text, secondary=True, at=ended)
    if is_leaving(pod) and code in WHEN_DELETED:
        return Failure("Infrastructure", Reason.PREEMPTED, f"{text}; the pod was deleted", at=ended)
    if code in BY_EXIT_CODE:
        fault, reason = BY_EXIT_CODE[ExitCode(code)]
        return Failure(fault, reason, text, at=ended)
    return Failure("Own", Reason.KILLED if code > 128 else Reason.ERROR, text, at=ended)
