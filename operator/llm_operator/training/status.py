"""The status that people read: conditions, phase and the printer columns. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_operator.api.common import Condition
from llm_operator.api.conditions import find, is_true, timestamp, with_condition
from llm_operator.api.estimate import memory_warnings
from llm_operator.api.memory import training_size
from llm_operator.api.reasons import Reason, TrainingCondition
from llm_operator.api.training import DATA_STAGE, LLMTrainingSpec
from llm_operator.api.training_status import LLMTrainingStatus, ModelStatus, StageStatus
from llm_operator.api.validation import InvalidSpecError
from llm_operator.kube.plan import Manifest
from llm_operator.training.known import told_sizes
from llm_operator.training.stages import run_uri

THOUSANDS = "KMBT"  # powers of thousand, in tokens


@dataclass(frozen=True)
class Verdict:
    """What is to be said of the whole training after a pass."""

    running: bool
    reason: Reason
    message: str
    failed: bool = False
    succeeded: bool = False
    taken_up: bool = False  # it had ended, and goes on


def all_succeeded(stages: Sequence[StageStatus]) -> Verdict:
    last = next((stage.result for stage in reversed(stages) if stage.result), None)
    said = f"all stages succeeded; the last result is {last.uri if last else 'missing'}"
    return Verdict(running=False, reason=Reason.SUCCEEDED, message=said, succeeded=True)


def is_over(training: Manifest, status: LLMTrainingStatus) -> bool:
    """It has ended, and its spec is the one with which it did; a change of the spec takes it up again."""
    accepted = find(status.conditions, TrainingCondition.ACCEPTED)
    tried = accepted is None or accepted.status == "True"
    return is_terminal(status) and tried and status.observed_generation == training["metadata"].get("generation")


def is_terminal(status: LLMTrainingStatus) -> bool:
    return any(is_true(status.conditions, kind) for kind in (TrainingCondition.SUCCEEDED, TrainingCondition.FAILED))


def refused(
    training: Manifest, old: LLMTrainingStatus, problems: InvalidSpecError, verdict: Verdict | None, now: float
) -> LLMTrainingStatus:
    """The status of a spec that can't work: nothing is created for it, and correcting it is enough.

    ``verdict`` is of what there was before the spec was changed, None if nothing ever was.
    """
    generation = training["metadata"].get("generation")
    conditions = with_condition(old.conditions, acceptance(problems, generation, now))
    if verdict:
        conditions = with_condition(conditions, running_condition(verdict, generation, now))
    conditions = as_of(generation, conditions)
    return old.model_copy(
        update={"observed_generation": generation, "conditions": conditions, "phase": phase(conditions)}
    )


def acceptance(spec: LLMTrainingSpec | InvalidSpecError, generation: int | None, now: float) -> Condition:
    if isinstance(spec, InvalidSpecError):
        return condition(TrainingCondition.ACCEPTED, "False", Reason.INVALID_SPEC, str(spec), generation, now)
    told = "; ".join(memory_warnings(spec))  # an estimate refuses nothing
    return condition(TrainingCondition.ACCEPTED, "True", Reason.VALID, told, generation, now)


def running_condition(verdict: Verdict, generation: int | None, now: float) -> Condition:
    running = "True" if verdict.running else "False"
    return condition(TrainingCondition.RUNNING, running, verdict.reason, verdict.message, generation, now)


def summary(
    training: Manifest,
    spec: LLMTrainingSpec | InvalidSpecError,
    old: LLMTrainingStatus,
    stages: Sequence[StageStatus],
    current: StageStatus,
    verdict: Verdict,
    now: float,
) -> LLMTrainingStatus:
    generation = training["metadata"].get("generation")
    conditions = with_condition(old.conditions, acceptance(spec, generation, now))
    conditions = with_condition(conditions, running_condition(verdict, generation, now))
    for kind, holds in ((TrainingCondition.SUCCEEDED, verdict.succeeded), (TrainingCondition.FAILED, verdict.failed)):
        if holds:
            conditions = with_condition(
                conditions, condition(kind, "True", verdict.reason, verdict.message, generation, now)
            )
        elif verdict.taken_up and is_true(conditions, kind):
            conditions = with_condition(
                conditions, condition(kind, "False", Reason.TAKEN_UP, verdict.message, generation, now)
            )
    conditions = as_of(generation, conditions)
    return LLMTrainingStatus(
        observed_generation=generation,
        observed_restart_token=old.observed_restart_token if isinstance(spec, InvalidSpecError) else spec.restart_token,
        phase=phase(conditions),
        model=old.model if isinstance(spec, InvalidSpecError) else model_status(spec, stages),
        run_uri=old.run_uri if isinstance(spec, InvalidSpecError) else run_uri(training, spec),
        stage=current.name,
        tokens=tokens_column(stages),
        progress=progress_column(current),
        loss=current.progress.loss if current.progress else None,  # another stage's is of another objective
        nodes=current.nodes,
        restarts=sum(stage.own_restarts + stage.infrastructure_restarts for stage in stages),
        conditions=conditions,
        stages=list(stages),
        publications=old.publications,
    )


def as_of(generation: int | None, conditions: Sequence[Condition]) -> list[Condition]:
    """All of them speak of this generation: `kubectl wait` believes none that speaks of an older one."""
    return [one.model_copy(update={"observed_generation": generation}) for one in conditions]


def model_status(spec: LLMTrainingSpec, stages: Sequence[StageStatus]) -> ModelStatus | None:
    size = training_size(spec) or told_sizes(stages).get(spec.model.uri or "")
    return ModelStatus(parameters=size.total, active_parameters=size.active) if size else None


def condition(kind: str, status: str, reason: str, message: str, generation: int | None, now: float) -> Condition:
    return Condition.model_validate(
        {
            "type": str(kind),
            "status": status,
            "observed_generation": generation,
            "last_transition_time": timestamp(now),
            "reason": str(reason),
            "message": message,
        }
    )


def phase(conditions: Sequence[Condition]) -> str:
    """One word for `kubectl get`; derived from the conditions and never read back."""
    for kind in (TrainingCondition.SUCCEEDED, TrainingCondition.FAILED):
        if is_true(conditions, kind):
            return str(kind)
    accepted = find(conditions, TrainingCondition.ACCEPTED)
    running = find(conditions, TrainingCondition.RUNNING)
    if accepted and accepted.status == "False" and (running is None or running.reason == Reason.INVALID_SPEC):
        return "Invalid"  # else an attempt of before is looked after, which tells more
    if running is None:
        return "Pending"
    if running.status == "True":
        return "Running"
    words = {Reason.SUSPENDED: "Suspended", Reason.STARTING: "Starting", Reason.RESTARTING: "Restarting"}
    return next((word for reason, word in words.items() if running.reason == reason), "Pending")


def tokens_column(stages: Sequence[StageStatus]) -> str:
    """Of the corpus, as far as data preparation has told: `20.0B`."""
    progress = stages[0].progress if stages and stages[0].name == DATA_STAGE else None
    count, thousands = float(progress.tokens) if progress else 0.0, 0
    while count >= 999.95 and thousands < len(THOUSANDS):
        count, thousands = count / 1000, thousands + 1
    return f"{count:.1f}{THOUSANDS[thousands - 1]}" if thousands else f"{count:.0f}" if count else ""


def progress_column(stage: StageStatus) -> str:
    """`120/400 30%`."""
    progress = stage.progress
    if progress is None or not progress.steps:
        return ""
    return f"{progress.step}/{progress.steps} {progress.percent}%"
