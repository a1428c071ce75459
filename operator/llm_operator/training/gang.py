"""The pods of one attempt: who of them lives, who ended and how, and rank 0's last word. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from llm_operator.kube import labels
from llm_operator.kube.labels import JOB_NAME
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import condition_of, container_state, is_leaving, phase_of
from llm_operator.training.manifests import CONTAINER
from llm_trainer.protocol import Progress, Termination

INDEX_LABEL = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True)
class Gang:
    """``pods`` are those that are there, ``departed`` those that were deleted, as they were last seen.

    ``ages`` has the seconds for which this operator has seen what it sees, by fact.
    """

    nodes: int
    job: Manifest | None  # None: it is gone
    pods: Sequence[Manifest] = ()
    departed: Sequence[Manifest] = ()
    ages: Mapping[str, float] = field(default_factory=dict)

    @property
    def living(self) -> list[Manifest]:
        """Those that nobody deletes: a pod that terminates runs for the gang no more."""
        return [pod for pod in self.pods if not is_leaving(pod)]

    @property
    def leaving(self) -> list[Manifest]:
        """Those that are being deleted and have not ended."""
        return [pod for pod in self.pods if is_leaving(pod) and not has_ended(pod)]

    @property
    def over(self) -> bool:
        """The Job makes no pod any more in place of one that goes: it failed, or is gone."""
        job = self.job
        if job is None or is_leaving(job):
            return True
        return bool(job_condition(job, "Failed") or job_condition(job, "FailureTarget"))

    @property
    def ended_well(self) -> bool:
        """The trainer of every pod ended with 0, whatever else runs on in the pods or has become of them."""
        well = {pod_index(pod) for pod in (*self.pods, *self.departed) if exit_code(pod) == 0}
        return set(range(self.nodes)) <= well

    @property
    def completed(self) -> bool:
        """The Job controller says so."""
        job = self.job
        return bool(job and (job_condition(job, "Complete") or job_condition(job, "SuccessCriteriaMet")))

    def missing(self) -> list[int]:
        """Places of pods that nobody fills."""
        there = {pod_index(pod) for pod in self.living}
        return [index for index in range(self.nodes) if index not in there]

    def final_progress(self) -> Progress | None:
        """Rank 0's last word; of several pods that were rank 0, say after a queue took one, the newest's."""
        words = [
            word.progress
            for pod in (*self.departed, *(pod for pod in self.pods if is_leaving(pod)), *self.living)
            if pod_index(pod) == 0 and (end := terminated_state(pod)) and (word := last_word(end)) and word.progress
        ]
        return words[-1] if words else None

    def age(self, fact: str) -> float:
        """Seconds; 0 of what was not seen before."""
        return self.ages.get(fact, 0.0)


# --- one pod -------------------------------------------------------------------------------------------------------


def job_of(pod: Manifest) -> str:
    return str((pod["metadata"].get("labels") or {}).get(JOB_NAME, ""))


def pod_index(pod: Manifest) -> int | None:
    index = str((pod["metadata"].get("labels") or {}).get(INDEX_LABEL))
    return int(index) if index.isdecimal() else None


def attempt_of(manifest: Manifest) -> tuple[str, int]:
    """Stage and number of the attempt that a child belongs to."""
    found: Mapping[str, str] = manifest["metadata"].get("labels") or {}
    number = found.get(labels.ATTEMPT, "")
    return found.get(labels.STAGE, ""), int(number) if number.isdecimal() else 0


def terminated_state(pod: Manifest) -> dict[str, Any] | None:
    """How the trainer's own container ended: a sidecar may run on, and says nothing."""
    return container_state(pod, CONTAINER, "terminated")


def exit_code(pod: Manifest) -> int | None:
    end = terminated_state(pod)
    return int(end["exitCode"]) if end else None


def has_ended(pod: Manifest) -> bool:
    return terminated_state(pod) is not None or phase_of(pod) in ("Succeeded", "Failed")


def processes_of(job: Manifest) -> int | None:
    """Of each pod, as the attempt was made; the spec may say something else by now. None: an older operator made it."""
    made = str((job["metadata"].get("labels") or {}).get(labels.PROCESSES, ""))
    return int(made) if made.isdecimal() else None


def last_word(terminated: dict[str, Any]) -> Termination | None:
    try:
        return Termination.model_validate_json(terminated.get("message") or "")
    except ValidationError:
        return None  # a log's tail: the container could not write it


def job_condition(job: Manifest, kind: str) -> dict[str, Any] | None:
    """A condition of the Job, if it is true."""
    condition = condition_of(job, kind)
    return condition if condition and condition["status"] == "True" else None


# --- facts whose age counts ----------------------------------------------------------------------------------------


def ended_fact(pod: Manifest) -> str:
    return f"ended/{pod['metadata']['uid']}"


def starting_fact(pod: Manifest) -> str:
    return f"starting/{pod['metadata']['uid']}"


def failed_fact(job: Manifest) -> str:
    return f"failed/{job['metadata']['uid']}"


def short_fact(job: str) -> str:
    """It lacks pods."""
    return f"short/{job}"


def vanished_fact(job: str) -> str:
    """The status knows it, and it is not there."""
    return f"vanished/{job}"


def under_way_fact(job: str) -> str:
    """The status says that the attempt has not ended."""
    return f"under way/{job}"


def over_fact(job: str) -> str:
    """The status says that the attempt has ended."""
    return f"over/{job}"


def unknown_fact(child: Manifest) -> str:
    """The status knows nothing of its attempt."""
    return f"unknown/{child['metadata']['uid']}"


def pod_facts(pods: Sequence[Manifest]) -> Iterator[str]:
    for pod in pods:
        if has_ended(pod) or condition_of(pod, "DisruptionTarget"):
            yield ended_fact(pod)
        elif container_state(pod, CONTAINER, "running") is None:
            yield starting_fact(pod)
