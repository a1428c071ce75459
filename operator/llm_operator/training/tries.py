"""The number of a stage's next attempt, and what an earlier try to make it has left. Pure.

A pass makes the children of an attempt and then writes it into the status. If that write is lost, what is there is the
only trace of the attempt: it is taken over as it is, or its number is not used while anything bears it. On the storage
the number keeps stale attempts from writing, and pods of the same one are not told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from llm_operator.api.training_status import StageStatus
from llm_operator.kube.kinds import JOB
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import is_leaving
from llm_operator.kube.templates import mark_of
from llm_operator.training.gang import attempt_of, job_of
from llm_operator.training.known import next_number
from llm_operator.training.names import child_name
from llm_operator.training.observe import Observed

Made = Callable[[int], Sequence[Manifest]]
"""The children of the attempt with this number, as they would be made now."""


def number_to_use(observed: Observed, stage: StageStatus, made: Made) -> int:
    number = next_number(stage)
    newest = max(numbers_borne(observed, stage.name), default=0)
    if newest < number or is_as_made(observed, made(newest)):
        return max(number, newest)
    return newest + 1


def numbers_borne(observed: Observed, stage: str) -> Iterator[int]:
    """Numbers of this stage's attempts of which there is anything, if only a pod that ends. A label that doesn't go
    with the name is somebody's own.
    """
    metadata = observed.training["metadata"]
    named = [(child, child["metadata"]["name"]) for child in observed.children]
    for child, name in (*named, *((pod, job_of(pod)) for pod in observed.pods)):
        of, number = attempt_of(child)
        if of == stage and name == child_name(metadata["name"], metadata["uid"], stage, number):
            yield number


def is_as_made(observed: Observed, wanted: Sequence[Manifest]) -> bool:
    """Whether what is there of an attempt can become a whole one, of the settings that hold now."""
    there = [child for child in observed.children if place(child) in set(map(place, wanted))]
    job = next(child["metadata"]["name"] for child in wanted if child["kind"] == JOB.name)
    if not any(child["kind"] == JOB.name for child in there) and any(job_of(pod) == job for pod in observed.pods):
        return False
    return all(not is_leaving(child) and mark_of(child) in map(mark_of, wanted) for child in there)


def missing(observed: Observed, wanted: Sequence[Manifest]) -> tuple[Manifest, ...]:
    """Those that aren't there yet. What is there is not touched again: Kueue and users may have changed it."""
    there = set(map(place, observed.children))
    return tuple(child for child in wanted if place(child) not in there)


def place(child: Manifest) -> tuple[str, str]:
    return child["kind"], child["metadata"]["name"]
