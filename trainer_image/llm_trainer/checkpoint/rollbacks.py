"""The rollbacks of a stage: which data they jumped over, and which checkpoints are of a time that doesn't count.

A rollback is in `checkpoints/rollbacks.json` before anything else of it happens. Each checkpoint tells how many there
were when it was written, so whoever resumes knows by both what is still to be done, wherever the last process died.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from llm_trainer.checkpoint.files import altered, write_durably

TUNED = "tuned.json"  # what trials have chosen
SIZE_TRIALS = "size-trials.json"  # of micro-batches
COMPILING = "compiling.json"  # while layers are compiled
JOURNAL = "rollbacks.json"  # beside the checkpoints: who removes them to train anew removes it too


class Rollback(BaseModel):
    """A place is the number of a step's share of the data: that of a step where nothing was jumped over."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    step: int = Field(ge=0, description="That was made when it was decided.")
    to: int = Field(ge=0, description="The last step that counts: the training goes on from it or from one before.")
    begin: int = Field(ge=0, description="First place that is jumped over.")
    end: int = Field(ge=1, description="The place after the last one.")
    message: str = Field(description="Why, and what is jumped over.")
    rate_factor: float = Field(default=1.0, gt=0, le=1, description="Of the learning rate, from then on.")


ROLLBACKS = TypeAdapter(list[Rollback])


def place_of(step: int, rollbacks: Sequence[Rollback]) -> int:
    """Of the step after `step` others: those that were jumped over have no step, all others have theirs in order."""
    place = step
    for begin, end in jumped(rollbacks):
        if place < begin:
            break
        place += end - begin
    return place


def jumped(rollbacks: Sequence[Rollback]) -> list[tuple[int, int]]:
    """Ranges of places, in order, each apart from the next."""
    ranges: list[tuple[int, int]] = []
    for begin, end in sorted((each.begin, each.end) for each in rollbacks):
        if ranges and begin <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((begin, end))
    return ranges


def rate_of(rollbacks: Sequence[Rollback]) -> float:
    """Factor of the learning rate."""
    return math.prod(each.rate_factor for each in rollbacks)


def is_abandoned(step: int, known: int, rollbacks: Sequence[Rollback]) -> bool:
    """Whether a checkpoint of `step`, which knew of the first `known` rollbacks, was made void by a later one."""
    return any(step > each.to for each in rollbacks[known:])


def target(safe: int, lead: int, steps: Sequence[int]) -> int | None:
    """Up to which step a checkpoint counts, so that there is one; None if all are of a time that has gone wrong.

    ``safe``: the newest step that is good for sure; so many ``lead`` steps after it were not seen to be off.
    """
    return next((bound for bound in (safe, safe + lead) if any(step <= bound for step in steps)), None)


def superseded(steps: Sequence[int], keep: int, safe: int | None) -> list[int]:
    """Checkpoints that may go: all but the newest `keep`, and but the one that a rollback to `safe` would go back to.

    That is the newest up to it; where there is none, the oldest of all is the nearest.
    """
    ordered = sorted(steps)
    good = [] if safe is None else [step for step in ordered if step <= safe][-1:] or ordered[:1]
    return [step for step in ordered[:-keep] if step not in good]


def read_rollbacks(checkpoints: Path) -> list[Rollback]:
    """Empty where there were none. Raises ConfigurationError for a file that was altered."""
    file = checkpoints / JOURNAL
    try:
        return ROLLBACKS.validate_json(file.read_bytes())
    except FileNotFoundError:
        return []
    except ValidationError as error:
        raise altered(file, error) from error


def write_rollbacks(checkpoints: Path, rollbacks: Sequence[Rollback]) -> None:
    write_durably(checkpoints / JOURNAL, ROLLBACKS.dump_json(list(rollbacks), by_alias=True, indent=1).decode() + "\n")


def set_journals_aside(checkpoints: Path, attempt: int) -> None:
    """With the checkpoints that they were about."""
    for name in (JOURNAL, TUNED, SIZE_TRIALS, COMPILING):
        if (file := checkpoints / name).exists():
            file.rename(file.with_name(f"set-aside-{attempt}-{name}"))
