"""Why an attempt ended, from what the kubelet and the container's last word say. Pure.

Sources: Kubernetes' pod failure conditions (DisruptionTarget) and ``llm_trainer.protocol.ExitCode``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from llm_operator.api.conditions import seconds_of
from llm_operator.api.reasons import Reason
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import Waiting, condition_of, container_state, held_up, last_line, where
from llm_operator.training.manifests import CONTAINER
from llm_trainer.protocol import ExitCode, Termination

Fault = Literal["Own", "Infrastructure", "Configuration"]
CAUSE_SECONDS = 10.0  # for the pod that caused it to be seen, when only its victims are
NEVER_WHOLE = (Reason.UNSCHEDULABLE, Reason.IMAGE_PULL_FAILED)  # a gang that lacked a pod never began: no restart

BY_EXIT_CODE: dict[int, tuple[Fault, Reason]] = {
    ExitCode.DATA: ("Configuration", Reason.DATA_ERROR),
    ExitCode.CONFIGURATION: ("Configuration", Reason.CONFIGURATION_ERROR),
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


@dataclass(frozen=True)
class Failure:
    """``outside``: the cluster's doing. ``secondary``: only because another pod of the gang is gone."""

    fault: Fault
    reason: Reason
    message: str
    outside: bool = False
    secondary: bool = False
    at: float = 0.0  # seconds since the epoch


def failure_of(pods: Sequence[Manifest], job: Manifest, now: float) -> Failure | None:
    """Why the gang failed; None if it didn't, or if the cause may still show."""
    failures = [failure for pod in pods if (failure := pod_failure(pod, now))]
    causes = [failure for failure in failures if not failure.secondary]
    if causes:
        return min(causes, key=precedence)
    if failures and (missing := missing_pod(pods)):
        return Failure("Infrastructure", missing.reason, f"{missing.message}; the other pods gave up waiting for it")
    condition = job_condition(job, "Failed")
    if failures and now - min(failure.at for failure in failures) >= CAUSE_SECONDS:
        return failures[0]
    late = condition and now - at(condition.get("lastTransitionTime"), now) >= CAUSE_SECONDS
    if condition and not failures and (late or not pods):
        text = f"the Job failed: {condition.get('message') or condition.get('reason')}; its pods are gone"
        return Failure("Infrastructure", Reason.EVICTED, text, at=now)
    return None


def precedence(failure: Failure) -> tuple[bool, float, bool]:
    """The cause sorts first.

    An eviction or a lost node explains what the others died of, not the other way round. A pod that left when asked to
    was asked because of another's end, which times in whole seconds may not tell.
    """
    return not failure.outside, failure.at, failure.reason == Reason.PREEMPTED


def missing_pod(pods: Sequence[Manifest]) -> Waiting | None:
    """What keeps a pod of the gang from ever having started."""
    found = (held_up(pod, CONTAINER) for pod in pods)
    return next((waiting for waiting in found if waiting and waiting.reason in NEVER_WHOLE), None)


def pod_failure(pod: Manifest, now: float) -> Failure | None:
    """Why this pod failed; None if it runs, waits or ended well."""
    terminated = terminated_state(pod)
    if terminated and terminated["exitCode"] == 0:
        return None  # whatever became of the pod afterwards
    disruption = condition_of(pod, "DisruptionTarget")
    if disruption and disruption["status"] == "True":
        reason = BY_DISRUPTION.get(disruption.get("reason", ""), Reason.EVICTED)
        text = f"{where(pod)}: {disruption.get('message') or disruption.get('reason')}"
        return Failure("Infrastructure", reason, text, outside=True, at=at(disruption.get("lastTransitionTime"), now))
    return container_failure(pod, terminated, now) if terminated else phase_failure(pod, now)


def phase_failure(pod: Manifest, now: float) -> Failure | None:
    """The kubelet refused or threw out the pod before its container could end."""
    status = pod.get("status") or {}
    if status.get("phase") != "Failed":
        return None
    text = f"{where(pod)}: {status.get('reason', 'failed')}: {status.get('message', '')}".rstrip(": ")
    return Failure("Infrastructure", Reason.EVICTED, text, outside=True, at=now)


def container_failure(pod: Manifest, terminated: dict[str, Any], now: float) -> Failure:
    code = int(terminated["exitCode"])
    word = last_word(terminated)
    said = word.message if word else last_line(terminated.get("message", ""))
    text = f"{where(pod)}, container {CONTAINER}, exit code {code}: {said or terminated.get('reason', 'no message')}"
    ended = at(terminated.get("finishedAt"), now)
    if terminated.get("reason") == "OOMKilled":
        return Failure("Own", Reason.OUT_OF_MEMORY, f"{text}; raise the memory limit", at=ended)
    if code == ExitCode.PEER_LOST:
        return Failure("Own", Reason.ERROR, text, secondary=True, at=ended)
    if code in BY_EXIT_CODE:
        fault, reason = BY_EXIT_CODE[ExitCode(code)]
        return Failure(fault, reason, text, at=ended)
    return Failure("Own", Reason.KILLED if code > 128 else Reason.ERROR, text, at=ended)


def last_word(terminated: dict[str, Any]) -> Termination | None:
    try:
        return Termination.model_validate_json(terminated.get("message") or "")
    except ValidationError:
        return None  # a log's tail: the container could not write it


def terminated_state(pod: Manifest) -> dict[str, Any] | None:
    return container_state(pod, CONTAINER, "terminated")


def job_condition(job: Manifest, kind: str) -> dict[str, Any] | None:
    """A condition of the Job, if it is true."""
    condition = condition_of(job, kind)
    return condition if condition and condition["status"] == "True" else None


def at(time: str | None, now: float) -> float:
    return seconds_of(time) if time else now
