"""`kubectl llm logs`: of one rank or of all, of any attempt whose pods are there; else what the status kept of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kubectl_llm.kubectl import TRAININGS, ExitCode, Kubectl, Manifest, PluginError
from kubectl_llm.screen import clean

CONTAINER = "trainer"
INDEX = "batch.kubernetes.io/job-completion-index"
JOB = "batch.kubernetes.io/job-name"
AT_ONCE = 64  # streams: an attempt may have more pods, of which kubectl would refuse all


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; None: the newest attempt of the stage whose turn it is, all ranks."""

    stage: str | None = None
    attempt: int | None = None
    rank: int | None = None


def attempt_of(training: Manifest, wanted: Wanted) -> tuple[Manifest, Manifest]:
    """The stage and the attempt, as the status tells them; refuses what isn't there with what is."""
    name = training["metadata"]["name"]
    stages = [one for one in (training.get("status") or {}).get("stages") or [] if one.get("attempts")]
    if not stages:
        raise PluginError(
            f"training {name} has begun no stage yet: `kubectl llm status {name}` tells why", ExitCode.NOT_FOUND
        )
    current = wanted.stage or (training["status"].get("stage") if wanted.stage is None else None)
    found = [one for one in stages if one["name"] == current] or ([] if wanted.stage else stages[-1:])
    if not found:
        begun = ", ".join(clean(one["name"]) for one in stages)
        raise PluginError(f"training {name} has begun no stage {wanted.stage}; there is: {begun}", ExitCode.NOT_FOUND)
    attempts: list[Manifest] = found[0]["attempts"]
    if wanted.attempt is None:
        return found[0], attempts[-1]
    for attempt in attempts:
        if attempt.get("number") == wanted.attempt:
            return found[0], attempt
    told = ", ".join(str(one.get("number")) for one in attempts)
    raise PluginError(
        f"stage {found[0]['name']} has no attempt {wanted.attempt}; the status has {told}", ExitCode.NOT_FOUND
    )


def pod_index(stage: Manifest, rank: int, processes: int) -> int:
    """Which pod has a rank: those that the status names tell it, else the number of processes of a pod."""
    for index, worker in enumerate(stage.get("workers") or []):
        first = worker.get("rank", 0)
        if first <= rank < first + worker.get("processes", 1):
            return index
    return rank // max(1, processes)


def arguments(pods: list[Manifest], job: str, index: int | None, *, follow: bool, tail: int) -> list[str]:
    """Of `kubectl logs`."""
    selector = f"{JOB}={job}" + (f",{INDEX}={index}" if index is not None else "")
    streams = min(max(len(pods), 1), AT_ONCE)
    found = ["logs", "-l", selector, "-c", CONTAINER, "--prefix", f"--tail={tail}", f"--max-log-requests={streams}"]
    return [*found, "--follow"] if follow else found


def gone(attempt: Manifest) -> PluginError:
    told = f"{clean(attempt.get('reason') or 'no reason told')}: {clean(attempt.get('message') or 'nothing was said')}"
    return PluginError(
        f"the pods of attempt {attempt.get('number')} are gone; its end was told as {told}", ExitCode.NOT_FOUND
    )


def command(kubectl: Kubectl, name: str, wanted: Wanted, *, follow: bool, tail: int) -> list[str]:
    """What to run for the logs."""
    stage, attempt = attempt_of(kubectl.one(TRAININGS, name), wanted)
    pods: list[Any] = kubectl.items("pods", "-l", f"{JOB}={attempt['job']}")
    if not pods:
        raise gone(attempt)
    index = None
    if wanted.rank is not None:
        label = pods[0]["metadata"].get("labels", {}).get("llm-operator.io/processes-per-pod", "1")
        index = pod_index(stage, wanted.rank, int(label) if label.isdigit() else 1)
        if str(index) not in {pod["metadata"].get("labels", {}).get(INDEX) for pod in pods}:
            raise PluginError(f"attempt {attempt.get('number')} has no rank {wanted.rank}", ExitCode.NOT_FOUND)
    if len(pods) > AT_ONCE and index is None and follow:
        raise PluginError(
            f"{len(pods)} pods are more than {AT_ONCE} that can be followed: choose one by --rank", ExitCode.USAGE
        )
    return kubectl.command(*arguments(pods, attempt["job"], index, follow=follow, tail=tail))
