"""When a loss has gone wrong, or gets no better, and what is done about it. Pure.

A ladder: a step whose gradient is not finite is left out; several in a row, or a spike that lasts, are rolled back and
their data jumped over, as was done by hand for PaLM (Chowdhery et al. 2022, 5.1), at a lower rate if so asked; a stage
that goes wrong again after its last rollback has diverged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from llm_trainer.checkpoint.rollbacks import Rollback
from llm_trainer.config import LossWatch

LEAST_DEVIATION = 0.005  # of the mean: of a loss that hardly moves any change would be many standard deviations
MOST_PLACES = 1000  # that one rollback jumps over because the one before was not enough
LEAD = 1  # steps before the first that is off: what a loss shows was learned in the step before


class Action(StrEnum):
    """As the history, the metric and the events have it."""

    SKIP = "Skip"
    ROLL_BACK = "RollBack"
    REDUCE_RATE = "ReduceRate"
    EARLY_STOP = "EarlyStop"
    DIVERGED = "Diverged"


@dataclass(frozen=True)
class Seen:
    """A step, with figures that are the same on all ranks. ``step``: how many were made with it."""

    step: int
    loss: float
    gradient_norm: float
    applied: bool


@dataclass(frozen=True)
class Decision:
    """``safe``: how many steps were good before what made it necessary. ``early``: before it is certain."""

    action: Action
    message: str
    safe: int = 0
    early: bool = False


class Memory(BaseModel):
    """What the watch knows of the steps before; a part of each checkpoint."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, ser_json_inf_nan="strings"
    )

    losses: tuple[float, ...] = ()  # of the last steps that were not off
    norms: tuple[float, ...] = ()
    off: int = 0  # steps in a row, up to now, that are
    spikes: int = 0  # of those, that were applied
    skipped: int = 0  # the last ones of those, that were left out
    best: float | None = None  # held-out loss
    since_best: int = 0  # evaluations
    goal: float | None = None  # the best that was better by `minDelta`
    since_goal: int = 0
    rate: float = 1.0  # factor of the learning rate, by plateaus
    stopped: bool = False  # early


def after_step(
    watch: LossWatch, memory: Memory, seen: Seen, rollbacks: int, patience: int, *, last: bool = False
) -> tuple[Memory, Decision | None]:
    """``rollbacks``: that were made; ``patience``: the most steps in a row that may be left out in so short a stage.

    ``last``: of the stage, whose result a spike would be in, however long it would have lasted.
    """
    cause = what_is_off(watch, memory, seen)
    if cause is None:
        losses, norms = (*memory.losses, seen.loss)[-watch.window :], (*memory.norms, seen.gradient_norm)
        calm = {"losses": losses, "norms": norms[-watch.window :], "off": 0, "spikes": 0, "skipped": 0}
        return memory.model_copy(update=calm), None
    spikes, skipped = memory.spikes + seen.applied, 0 if seen.applied else memory.skipped + 1
    memory = memory.model_copy(update={"off": memory.off + 1, "spikes": spikes, "skipped": skipped})
    are = "is" if memory.off == 1 else "are"
    told = f"{count(memory.off, 'step')} in a row, up to step {seen.step}, {are} off, the last because {cause}"
    safe = safe_step(memory, seen.step)
    if skipped < min(watch.skips, patience) and spikes < watch.spike_steps:
        if last and spikes and rollbacks < watch.rollbacks:
            return memory, Decision(Action.ROLL_BACK, f"{told}, at the stage's end", safe, early=True)
        return memory, None if seen.applied else Decision(Action.SKIP, f"step {seen.step} is left out: {cause}")
    if rollbacks >= watch.rollbacks:
        return memory, Decision(Action.DIVERGED, f"{told}; {count(rollbacks, 'rollback')} did not help", safe)
    return memory, Decision(Action.ROLL_BACK, told, safe)


def what_is_off(watch: LossWatch, memory: Memory, seen: Seen) -> str | None:
    """A large gradient alone is clipped and does no harm; with a loss that rises it is a spike sooner."""
    if not seen.applied:
        return "the gradient is not finite"
    if not math.isfinite(seen.loss):
        return f"the loss is {seen.loss}"
    if len(memory.losses) < watch.window // 2:
        return None
    loss, norm = deviations(seen.loss, memory.losses), deviations(seen.gradient_norm, memory.norms)
    if loss > watch.sigma or (norm > watch.sigma and loss > watch.sigma / 2):
        mean = mean_of(memory.losses)
        return (
            f"the loss {seen.loss:.4g} is {loss:.1f} standard deviations above the mean {mean:.4g} of the last "
            f"{len(memory.losses)} steps (gradient norm {seen.gradient_norm:.4g})"
        )
    return None


def deviations(value: float, before: Sequence[float]) -> float:
    """By how many standard deviations a value is above the mean; 0 where that can't be told."""
    known = [each for each in before if math.isfinite(each)]
    mean = mean_of(known)
    spread = math.sqrt(mean_of([(each - mean) * (each - mean) for each in known]))
    if not known or math.isnan(value) or not math.isfinite(spread):  # of numbers whose squares are none
        return 0.0
    spread = max(spread, LEAST_DEVIATION * abs(mean))
    return (value - mean) / spread if spread else math.inf if value > mean else 0.0


def mean_of(values: Sequence[float]) -> float:
    """Infinite or NaN for numbers too large to be added, where `statistics` raises."""
    return sum(values) / len(values) if values else math.nan


def safe_step(memory: Memory, step: int) -> int:
    """The newest of `step` steps from which a rollback may go on, now or if the next step is off."""
    return max(0, step - memory.off - LEAD)


def jump(begin: int, end: int, rollbacks: Sequence[Rollback], near: int) -> int:
    """Where the data goes on that is jumped over from `begin`, of which the part up to `end` is known to be bad.

    Bad data that goes on behind the jump before it, or begins within `near` places, is more than was seen of it: then
    twice as much as before is jumped over.
    """
    before = rollbacks[-1] if rollbacks else None
    if before is None or not before.begin < end <= before.end + near:
        return end
    return max(end, before.end + min(MOST_PLACES, 2 * (before.end - before.begin)))


def after_evaluation(
    watch: LossWatch, memory: Memory, loss: float, step: int, *, last: bool
) -> tuple[Memory, Decision | None]:
    """Of a held-out loss. ``last``: of the stage, after which neither the rate nor an end matters."""
    plateau, early = watch.reduce_on_plateau, watch.early_stop
    better = is_better(loss, memory.best, 0.0)
    reached = is_better(loss, memory.goal, early.min_delta if early else 0.0)
    memory = memory.model_copy(
        update={
            "best": loss if better else memory.best,
            "since_best": 0 if better else memory.since_best + 1,
            "goal": loss if reached else memory.goal,
            "since_goal": 0 if reached else memory.since_goal + 1,
        }
    )
    if last:
        return memory, None
    if early and memory.since_goal >= early.patience:
        wanted = None if memory.goal is None else memory.goal - early.min_delta
        said = f"{no_better(memory.since_goal, step, wanted)}: the stage ends here"
        return memory.model_copy(update={"stopped": True}), Decision(Action.EARLY_STOP, said)
    if plateau and memory.since_best >= plateau.patience:
        rate = memory.rate * plateau.factor
        said = f"{no_better(memory.since_best, step, memory.best)}: the learning rate is {rate:.4g} of its schedule"
        return memory.model_copy(update={"rate": rate, "since_best": 0}), Decision(Action.REDUCE_RATE, said)
    return memory, None


def no_better(evaluations: int, step: int, wanted: float | None) -> str:
    told = "that is a number" if wanted is None else f"below {wanted:.4f}"
    return f"{count(evaluations, 'evaluation')} in a row, up to step {step}, had no held-out loss {told}"


def is_better(loss: float, best: float | None, by: float) -> bool:
    return math.isfinite(loss) and (best is None or loss < best - by)


def count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def shown_numbers(numbers: Sequence[int], most: int = 8) -> str:
    """Of rows or documents, in a message."""
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(map(str, numbers[:most])) + more
