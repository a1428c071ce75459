"""Decides what follows from what is seen of a training. Pure: no clock, no I/O, no kopf.

The status is the truth about attempts and budgets; children are disposable. So the status is written after the
children of a new attempt, and the children of an ended one are deleted only once the status has its cause. A pass that
learns of an end writes that and nothing else: no refusal can then lose it, and the next pass goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llm_operator.api.common import Condition
from llm_operator.api.conditions import find, seconds_of, timestamp
from llm_operator.api.reasons import Reason, TrainingCondition
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.training_status import AttemptStatus, LLMTrainingStatus, StageStatus
from llm_operator.api.validation import InvalidSpecError
from llm_operator.kube.plan import Manifest, Plan
from llm_operator.kube.pods import Waiting
from llm_operator.kube.templates import mark_of
from llm_operator.training import manifests
from llm_operator.training.again import taken_up
from llm_operator.training.bounds import bounded
from llm_operator.training.events import events_between
from llm_operator.training.failures import (
    NEVER_WHOLE,
    Failure,
    Fault,
    failure_of,
    job_condition,
    last_word,
    terminated_state,
)
from llm_operator.training.known import known_stages, next_number, open_attempt, unfinished
from llm_operator.training.leftovers import attempts_by_place, created, deletions, orphaned, superseded
from llm_operator.training.names import child_name
from llm_operator.training.observe import Observed, job_of
from llm_operator.training.progress import pod_index, silence, with_progress, workers
from llm_operator.training.restarts import next_attempt_at, with_restart
from llm_operator.training.stages import PlannedStage, claims_of, run_uri, stage_config
from llm_operator.training.status import Verdict, all_succeeded, is_over, is_terminal, refused, summary
from llm_operator.training.waiting import is_suspended, pods_to_start, waiting_for
from llm_trainer.protocol import Progress

CAUSE_LOOK_SECONDS = 1.0
MISSING_LOOK_SECONDS = 10.0
NEWS_SECONDS = 10.0  # by which one watch may be behind another


@dataclass(frozen=True)
class Outcome:
    """What a pass makes of one stage."""

    stage: StageStatus
    verdict: Verdict
    create: tuple[Manifest, ...] = ()
    requeue_after: float | None = None


def reconcile(observed: Observed, now: float) -> Plan:
    old = LLMTrainingStatus.model_validate(observed.training.get("status") or {})
    if is_over(observed.training, old):
        return Plan()
    spec = observed.spec
    assert spec is not None  # noqa: S101 -- it is not over
    if isinstance(spec, InvalidSpecError):
        return plan(observed, old, refused(observed.training, old, str(spec), now), now)
    if is_terminal(old):
        return plan(observed, old, taken_up(observed.training, spec, old, now), now)
    planned, stages = known_stages(spec, old)
    running = find(old.conditions, TrainingCondition.RUNNING)
    index = unfinished(stages)
    if index is None:  # those that had not were removed
        outcome = Outcome(stages[-1], all_succeeded(stages))
    else:
        outcome = Pass(observed, spec, planned[index], tuple(stages), running, now).decide(stages[index])
        stages[index] = outcome.stage
        if unfinished(stages) is None:
            outcome = replace(outcome, verdict=all_succeeded(stages))
    status = summary(observed.training, spec, old, stages, outcome.stage, outcome.verdict, now)
    return plan(observed, old, status, now, outcome.create, outcome.requeue_after)


def apply_refused(observed: Observed, problem: str, now: float) -> Plan:
    """The stage waits and says for what; the next try may go through, say because a quota was raised."""
    old = LLMTrainingStatus.model_validate(observed.training.get("status") or {})
    spec = observed.spec
    assert isinstance(spec, LLMTrainingSpec)  # noqa: S101 -- nothing is made of a wrong one
    _, stages = known_stages(spec, old)
    index = unfinished(stages)
    current = stages[-1 if index is None else index]
    verdict = Verdict(running=False, reason=Reason.APPLY_REFUSED, message=f"stage {current.name}: {problem}")
    new = summary(observed.training, spec, old, stages, current, verdict, now)
    return Plan(status=as_written(new), events=tuple(events_between(old, new)))


def as_written(status: LLMTrainingStatus) -> Manifest:
    """No status is written that has not gone through here, nor compared with what was written."""
    return bounded(status).model_dump(mode="json", by_alias=True, exclude_none=True)


def plan(
    observed: Observed,
    old: LLMTrainingStatus,
    new: LLMTrainingStatus,
    now: float,
    create: tuple[Manifest, ...] = (),
    requeue_after: float | None = None,
) -> Plan:
    written = as_written(new)
    events = tuple(events_between(old, new))
    if ended_attempts(new) - ended_attempts(old):
        return Plan(status=written, events=events, requeue_after=0.0)
    orphans = orphaned(observed, new)
    surely = [child for child in orphans if now - created(child) >= NEWS_SECONDS]
    if surely != orphans:
        requeue_after = min(requeue_after or NEWS_SECONDS, NEWS_SECONDS)
    delete = deletions((*superseded(observed, old), *surely))
    if written == (observed.training.get("status") or {}):
        return Plan(create, delete=delete, requeue_after=requeue_after)
    return Plan(create, delete=delete, status=written, events=events, requeue_after=requeue_after)


def ended_attempts(status: LLMTrainingStatus) -> set[tuple[str, int]]:
    return {place for place, attempt in attempts_by_place(status).items() if attempt.end_time}


@dataclass(frozen=True)
class Pass:
    """One look at the stage whose turn it is."""

    observed: Observed
    spec: LLMTrainingSpec
    planned: PlannedStage
    stages: tuple[StageStatus, ...]
    old_running: Condition | None
    now: float

    def decide(self, stage: StageStatus) -> Outcome:
        attempt = open_attempt(stage)
        if attempt is None:
            return self._start(stage)
        job = next((job for job in self.observed.jobs if job["metadata"]["name"] == attempt.job), None)
        pods = [pod for pod in self.observed.pods if job_of(pod) == attempt.job]
        if job and (job_condition(job, "Complete") or job_condition(job, "SuccessCriteriaMet")):
            return self._succeeded(stage, job, pods)
        if self.spec.suspend:
            return self._start(ended(stage, Reason.SUSPENDED, None, "suspended by spec.suspend", self.now))
        if job is None or "deletionTimestamp" in job["metadata"]:
            return self._vanished(stage, attempt, job)
        if is_suspended(job) and not job_condition(job, "Failed"):
            pods = []  # the queue took them
        if failure := failure_of(pods, job, self.now):
            return self._after_failure(with_last_words(stage, pods, self.observed.progress_interval), failure)
        return self._goes_on(stage, job, pods)

    # --- an attempt is under way ---

    def _goes_on(self, stage: StageStatus, job: Manifest, pods: list[Manifest]) -> Outcome:
        number = stage.attempts[-1].number
        ending = any(terminated_state(pod) for pod in pods) or (job.get("status") or {}).get("conditions")
        look = CAUSE_LOOK_SECONDS if ending else None  # what ended may soon show why
        missing = len(pods) < stage.nodes  # no watch tells why
        if waiting := waiting_for(pods, job, self._failed_create(stage) if missing else ""):
            return waits(stage, waiting, look or (MISSING_LOOK_SECONDS if missing else None))
        seen = workers(pods, self.planned.processes_per_node)
        stage = stage.model_copy(update={"state": "Running", "workers": seen, "workers_left_out": None})
        told = self.observed.progress
        if told and (told.stage, told.attempt) == (stage.name, number):
            stage = with_progress(stage, told, self.observed.progress_interval)
        said = f"stage {stage.name}, attempt {number}: {stage.nodes} {'pod runs' if stage.nodes == 1 else 'pods run'}"
        verdict = Verdict(running=True, reason=Reason.RUNNING, message=self._with_silence(said, stage, pods))
        return Outcome(stage, verdict, requeue_after=look)  # news of rank 0 wakes the training

    def _failed_create(self, stage: StageStatus) -> str:
        if self.observed.failed_create is None and self.old_running and self.old_running.reason == Reason.FAILED_CREATE:
            # the operator has just started and has not read the events yet
            about, _, said = self.old_running.message.partition(": ")
            return said if about == f"stage {stage.name}, attempt {stage.attempts[-1].number}" else ""
        return self.observed.failed_create or ""

    def _with_silence(self, said: str, stage: StageStatus, pods: list[Manifest]) -> str:
        """That rank 0 can't be asked, in words that are the same at every try, until it answers."""
        first = next((pod for pod in pods if pod_index(pod) == 0), None)
        if self.observed.silence and first:
            return f"{said}; {silence(first, stage, self.observed.silence)}"
        before = self.old_running.message if self.old_running else ""
        if self.observed.progress is None and before.startswith(f"{said}; "):
            return before  # the operator has just started and asked nobody yet
        return said

    def _succeeded(self, stage: StageStatus, job: Manifest, pods: list[Manifest]) -> Outcome:
        if any(pod_index(pod) == 0 and not terminated_state(pod) for pod in pods):
            return self._goes_on(stage, job, pods)  # the Job's news was faster than the pod's
        told = final_progress(pods)
        if told is None or told.result is None:
            # A result published earlier is not the last one. The next attempt finds the last checkpoint and exports it.
            fault: Fault = "Own" if any(pod_index(pod) == 0 for pod in pods) else "Infrastructure"
            lost = Failure(fault, Reason.ERROR, "the pods succeeded, but there is no last word of rank 0 with a result")
            return self._after_failure(stage, lost)
        stage = with_progress(stage, told, self.observed.progress_interval, final=True)
        stage = ended(stage, Reason.SUCCEEDED, None, "", self.now)
        stage = stage.model_copy(update={"state": "Succeeded", "end_time": timestamp(self.now)})
        return Outcome(stage, Verdict(running=False, reason=Reason.STARTING, message=f"stage {stage.name} succeeded"))

    def _vanished(self, stage: StageStatus, attempt: AttemptStatus, job: Manifest | None) -> Outcome:
        if job is None and self.now - seconds_of(attempt.start_time) < NEWS_SECONDS:
            # Of two watches one may be late: another replica made the Job, and only its status has come so far.
            return waits(stage, pods_to_start(stage.nodes), NEWS_SECONDS)
        gone = Failure("Infrastructure", Reason.KILLED, f"Job {attempt.job} was deleted")
        return self._after_failure(stage, gone)

    def _after_failure(self, stage: StageStatus, failure: Failure) -> Outcome:
        stage = ended(stage, failure.reason, failure.fault, failure.message, self.now)
        if failure.fault == "Configuration":
            return self._failed(stage, failure.reason, failure.message)
        if failure.reason in NEVER_WHOLE:
            return self._restarts(stage)
        budget = self.spec.restarts
        if again := with_restart(stage, failure.fault, budget):
            return self._restarts(again)
        # A full disk is the cause whatever the budget; a budget explains nothing by itself.
        reason = failure.reason if failure.reason == Reason.NO_SPACE else Reason.RESTARTS_EXHAUSTED
        limit = f"{failure.fault.lower()} {budget.own if failure.fault == 'Own' else budget.infrastructure}"
        said = f"no restart is left of spec.restarts.{limit}; the last attempt: {failure.message}"
        return self._failed(stage, reason, said)

    def _failed(self, stage: StageStatus, reason: Reason, message: str) -> Outcome:
        stage = stage.model_copy(update={"state": "Failed", "end_time": timestamp(self.now)})
        said = f"stage {stage.name}, attempt {stage.attempts[-1].number}: {message}"
        return Outcome(stage, Verdict(running=False, reason=reason, message=said, failed=True))

    # --- none is ---

    def _start(self, stage: StageStatus) -> Outcome:
        if self.spec.suspend:
            said = "spec.suspend is true; progress up to the last checkpoint is kept"
            return Outcome(stage, Verdict(running=False, reason=Reason.SUSPENDED, message=said))
        if missing := [claim for claim in claims_of(self.spec) if claim not in self.observed.claims]:
            said = (
                f"PersistentVolumeClaim {', '.join(missing)} does not exist in namespace "
                f"{self.observed.training['metadata']['namespace']}; create it, the training then goes on"
            )
            return Outcome(stage, Verdict(running=False, reason=Reason.CLAIM_NOT_FOUND, message=said))
        if self.observed.occupant:
            said = (
                f"LLMTraining {self.observed.occupant} still writes into {run_uri(self.observed.training, self.spec)}; "
                "delete or suspend it, or wait for its end: this training then takes the folder up"
            )
            verdict = Verdict(running=False, reason=Reason.RUN_FOLDER_IN_USE, message=said)
            return Outcome(stage, verdict, requeue_after=MISSING_LOOK_SECONDS)
        if next_attempt_at(stage) > self.now:
            return self._restarts(stage)
        return self._new_attempt(stage)

    def _restarts(self, stage: StageStatus) -> Outcome:
        """The last attempt ended badly, and the next is not there yet."""
        last, due = stage.attempts[-1], next_attempt_at(stage)
        when = f" at {timestamp(due)}" if due > self.now else ""
        said = f"stage {stage.name}: attempt {last.number + 1} starts{when}; the last: {last.message}"
        verdict = Verdict(running=False, reason=Reason.RESTARTING, message=said)
        return Outcome(stage, verdict, requeue_after=max(0.0, due - self.now))

    def _new_attempt(self, stage: StageStatus) -> Outcome:
        metadata = self.observed.training["metadata"]
        number = next_number(stage)
        results = {known.name: known.result.uri for known in self.stages if known.result}
        config = stage_config(self.observed.training, self.spec, self.planned, number, results)
        image = self.spec.image or self.observed.trainer_image
        children = manifests.children(self.observed.training, self.spec, self.planned, config, image)
        if stale := [child for child in self._there(children) if mark_of(child) not in map(mark_of, children)]:
            # Of a try that was refused before the status knew of it; since then the spec has changed. Nobody knows it,
            # so it goes as an orphan.
            said = f"stage {stage.name}: {len(stale)} objects of an earlier try are deleted first"
            return Outcome(stage, Verdict(running=False, reason=Reason.STARTING, message=said))
        job = child_name(metadata["name"], metadata["uid"], stage.name, number)
        attempt = AttemptStatus(number=number, job=job, start_time=timestamp(self.now))
        stage = stage.model_copy(
            update={
                "attempts": [*stage.attempts, attempt],
                "start_time": stage.start_time or timestamp(self.now),
                "nodes": self.planned.nodes,
            }
        )
        return waits(stage, pods_to_start(stage.nodes), create=self._missing(children))

    def _missing(self, children: Sequence[Manifest]) -> tuple[Manifest, ...]:
        """Those that aren't there yet. What is there is not touched again: Kueue and users may have changed it."""
        there = {(child["kind"], child["metadata"]["name"]) for child in self._there(children)}
        return tuple(child for child in children if (child["kind"], child["metadata"]["name"]) not in there)

    def _there(self, children: Sequence[Manifest]) -> list[Manifest]:
        """What has the names of these."""
        names = {(child["kind"], child["metadata"]["name"]) for child in children}
        known = (*self.observed.jobs, *self.observed.services, *self.observed.config_maps)
        return [child for child in known if (child["kind"], child["metadata"]["name"]) in names]


def waits(
    stage: StageStatus, waiting: Waiting, requeue_after: float | None = None, create: tuple[Manifest, ...] = ()
) -> Outcome:
    """The attempt is there, its pods don't run yet or any more."""
    again = len(stage.attempts) > 1 and stage.attempts[-2].fault is not None
    reason = Reason.RESTARTING if again and waiting.reason == Reason.STARTING else waiting.reason
    said = f"stage {stage.name}, attempt {stage.attempts[-1].number}: {waiting.message}"
    stage = stage.model_copy(update={"state": "Pending", "workers": [], "workers_left_out": None})
    return Outcome(stage, Verdict(running=False, reason=reason, message=said), create, requeue_after)


def ended(stage: StageStatus, reason: Reason, fault: str | None, message: str, now: float) -> StageStatus:
    attempt = stage.attempts[-1].model_copy(
        update={"end_time": timestamp(now), "reason": str(reason), "fault": fault, "message": message}
    )
    state = "Pending" if stage.state == "Running" else stage.state
    return stage.model_copy(update={"attempts": [*stage.attempts[:-1], attempt], "state": state})


def with_last_words(stage: StageStatus, pods: Sequence[Manifest], interval: float) -> StageStatus:
    """The stage with the final progress of rank 0, which its termination message carries."""
    told = final_progress(pods)
    return with_progress(stage, told, interval, final=True) if told else stage


def final_progress(pods: Sequence[Manifest]) -> Progress | None:
    for pod in pods:
        terminated = terminated_state(pod)
        if pod_index(pod) == 0 and terminated and (word := last_word(terminated)):
            return word.progress
    return None
