"""What must hold of spec.publish: places that are one result's own, of stages that exist."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from llm_operator.api.training import LLMTrainingSpec
from llm_trainer.config import Remote, parse


def publish_problems(spec: LLMTrainingSpec) -> Iterator[str]:
    places: list[tuple[str, str, Remote]] = []
    names = [stage.name for stage in spec.stages]
    for index, entry in enumerate(spec.publish):
        path = f"spec.publish[{index}]"
        if entry.stage is not None and entry.stage not in names:
            yield f"{path}.stage: stage {entry.stage!r} does not exist; the stages are {', '.join(names)}"
        try:
            remote = parse(entry.to)
        except ValueError as error:
            yield f"{path}.to: {error}"
            continue
        if remote.datasets:
            yield f"{path}.to: {entry.to!r} must be a repository of models; write hf://ORG/NAME"
        places.append((path, entry.to, remote))
    for (_, first, one), (path, second, other) in combinations(places, 2):
        if first == second or overlap(one, other):
            yield f"{path}.to: {second} and {first} lie in one another; give each a place of its own"


def overlap(one: Remote, other: Remote) -> bool:
    """Whether files of one lie among the other's."""
    if (one.scheme, one.authority, one.revision) != (other.scheme, other.authority, other.revision):
        return False
    ways = [remote.path.split("/") if remote.path else [] for remote in (one, other)]
    shorter = min(map(len, ways))
    return ways[0][:shorter] == ways[1][:shorter]
