"""Decides what follows from what is seen of a training. Pure: no clock, no I/O, no kopf.

The status is the truth about attempts and budgets; children are disposable. So the status is written after the
children of a new attempt, and the children of an ended one are deleted only once the status has its cause.
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
from llm_operator.training.leftovers import created, deletions, orphaned, superseded
from llm_operator.training.names import child_name
from llm_operator.training.observe import Observed, job_of
from llm_operator.training.progress import pod_index, silence, with_progress, workers
from llm_operator.training.stages import PlannedStage, claims_of, planned_stages, run_uri, stage_config
from llm_operator.training.status import Verdict, is_terminal, refused, summary
from llm_operator.training.waiting import is_suspended, pods_to_start, waiting_for
from llm_operator.training.words import Places, believed
from llm_trainer.protocol import Progress

LONGEST_BACKOFF_SECONDS = 60.0
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
    if is_terminal(old):
        return Plan()
    spec = observed.spec
    assert spec is not None  # noqa: S101 -- not all is over
    if isinstance(spec, InvalidSpecError):
        return plan(observed, old, refused(observed.training, old, str(spec), now), now)
    planned = as_started(planned_stages(spec), old.stages)
    stages = merged(planned, old.stages)
    running = find(old.conditions, TrainingCondition.RUNNING)
    create: tuple[Manifest, ...] = ()
    outcome: Outcome | None = None
    for index, stage in enumerate(planned):
        if stages[index].state == "Succeeded":
            continue
        outcome = Pass(observed, spec, stage, tuple(stages), running, now).decide(stages[index])
        stages[index] = outcome.stage
        create += outcome.create
        if outcome.stage.state != "Succeeded":
            break
    if outcome is None or outcome.stage.state == "Succeeded":
        last = next((stage.result for stage in reversed(stages) if stage.result), None)
        said = f"all stages succeeded; the last result is {last.uri if last else 'missing'}"
        verdict = Verdict(running=False, reason=Reason.SUCCEEDED, message=said, succeeded=True)
        outcome = Outcome(stages[-1], verdict)
    status = summary(observed.training, spec, old, stages, outcome.stage, outcome.verdict, now)
    return plan(observed, old, status, now, create, outcome.requeue_after)


def apply_refused(observed: Observed, problem: str, now: float) -> Plan:
    """The stage waits and says for what; the next try may go through, say because a quota was raised."""
    old = LLMTrainingStatus.model_validate(observed.training.get("status") or {})
    spec = observed.spec
    assert isinstance(spec, LLMTrainingSpec)  # noqa: S101 -- nothing is made of a wrong one
    stages = merged(as_started(planned_stages(spec), old.stages), old.stages)
    current = next((stage for stage in stages if stage.state != "Succeeded"), stages[-1])
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
    orphans = orphaned(observed, new)
    surely = [child for child in orphans if now - created(child) >= NEWS_SECONDS]
    if surely != orphans:
        requeue_after = min(requeue_after or NEWS_SECONDS, NEWS_SECONDS)
    delete = deletions((*superseded(observed, old), *surely))
    written = as_written(new)
    if written == (observed.training.get("status") or {}):
        return Plan(create, delete=delete, requeue_after=requeue_after)
    events = tuple(events_between(old, new))
    return Plan(create, delete=delete, status=written, events=events, requeue_after=requeue_after)


def as_started(planned: Sequence[PlannedStage], known: Sequence[StageStatus]) -> list[PlannedStage]:
    """A stage keeps the number of pods with which it started: its checkpoints are of so many processes."""
    nodes = {stage.name: stage.nodes for stage in known if stage.start_time}
    return [replace(stage, nodes=nodes.get(stage.name, stage.nodes)) for stage in planned]


def merged(planned: Sequence[PlannedStage], known: Sequence[StageStatus]) -> list[StageStatus]:
    """One status per planned stage; what is known of a stage stays. A stage that was removed is forgotten."""
    by_name = {stage.name: stage for stage in known}
    return [
        with_shape(by_name.get(stage.name, StageStatus(name=stage.name, kind=stage.kind)), stage) for stage in planned
    ]


def with_shape(stage: StageStatus, planned: PlannedStage) -> StageStatus:
    """What the spec says now is for the next attempt: one that is under way, or was the last, stays what it is."""
    if stage.state == "Succeeded" or open_attempt(stage):
        return stage
    shape = ("kind", "nodes", "memory_per_process", "flops_per_token")
    return stage.model_copy(update={name: getattr(planned, name) for name in shape})


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
            return self._after_failure(self._with_last_words(stage, pods), failure)
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
            stage = with_progress(stage, self._believed(told, stage), self.observed.progress_interval)
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
        told = self._last_words(stage, pods)
        if told is None or told.result is None:
            # A result published earlier is not the last one. The next attempt finds the last checkpoint and exports it.
            stage = self._with_last_words(stage, pods)
            fault: Fault = "Own" if any(pod_index(pod) == 0 for pod in pods) else "Infrastructure"
            lost = Failure(fault, Reason.ERROR, "the pods succeeded, but there is no last word of rank 0 with a result")
            return self._after_failure(stage, lost)
        stage = with_progress(stage, told, self.observed.progress_interval, final=True)
        stage = ended(stage, Reason.SUCCEEDED, None, "", self.now)
        stage = stage.model_copy(update={"state": "Succeeded", "end_time": timestamp(self.now)})
        return Outcome(stage, Verdict(running=False, reason=Reason.STARTING, message=f"stage {stage.name} succeeded"))

    def _last_words(self, stage: StageStatus, pods: Sequence[Manifest]) -> Progress | None:
        """The final progress of rank 0, which its termination message carries."""
        told = final_progress(pods)
        return self._believed(told, stage) if told else None

    def _with_last_words(self, stage: StageStatus, pods: Sequence[Manifest]) -> StageStatus:
        told = self._last_words(stage, pods)
        return with_progress(stage, told, self.observed.progress_interval, final=True) if told else stage

    def _believed(self, told: Progress, stage: StageStatus) -> Progress:
        run = run_uri(self.observed.training, self.spec)
        return believed(told, Places(run, stage.name, claims_of(self.spec)))

    def _vanished(self, stage: StageStatus, attempt: AttemptStatus, job: Manifest | None) -> Outcome:
        if job is None and self.now - seconds_of(attempt.start_time) < NEWS_SECONDS:
            # Of two watches one may be late: another replica made the Job, and only its status has come so far.
            return waits(stage, pods_to_start(stage.nodes), NEWS_SECONDS)
        gone = Failure("Infrastructure", Reason.KILLED, f"Job {attempt.job} was deleted")
        return self._after_failure(stage, gone)

    def _after_failure(self, stage: StageStatus, failure: Failure) -> Outcome:
        stage = ended(stage, failure.reason, failure.fault, failure.message, self.now)
        budget = self.spec.restarts
        if failure.fault == "Configuration":
            return self._failed(stage, failure.reason, f"stage {stage.name}: {failure.message}")
        if failure.reason in NEVER_WHOLE:
            return self._start(stage)
        restarts = restarts_of(stage, failure.fault)
        limit = budget.own if failure.fault == "Own" else budget.infrastructure
        if restarts >= limit:
            # A full disk is the cause whatever the budget; a budget explains nothing by itself.
            reason = failure.reason if failure.reason == Reason.NO_SPACE else Reason.RESTARTS_EXHAUSTED
            path = f"spec.restarts.{failure.fault.lower()}"
            said = f"stage {stage.name}: no restart is left of {path} {limit}; the last attempt: {failure.message}"
            return self._failed(stage, reason, said)
        field = f"{failure.fault.lower()}_restarts"
        return self._start(stage.model_copy(update={field: restarts + 1}))

    def _failed(self, stage: StageStatus, reason: Reason, message: str) -> Outcome:
        stage = stage.model_copy(update={"state": "Failed", "end_time": timestamp(self.now)})
        return Outcome(stage, Verdict(running=False, reason=reason, message=message, failed=True))

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
        due = next_attempt_at(stage)
        if due > self.now:
            last = stage.attempts[-1]
            said = f"stage {stage.name}: attempt {last.number + 1} starts at {timestamp(due)}; the last: {last.message}"
            verdict = Verdict(running=False, reason=Reason.RESTARTING, message=said)
            return Outcome(stage, verdict, requeue_after=due - self.now)
        return self._new_attempt(stage)

    def _new_attempt(self, stage: StageStatus) -> Outcome:
        metadata = self.observed.training["metadata"]
        number = stage.attempts[-1].number + 1 if stage.attempts else 1
        results = {known.name: known.result.uri for known in self.stages if known.result}
        digests = known_digests(self.stages, stage)
        config = stage_config(self.observed.training, self.spec, self.planned, number, results, digests)
        image = self.spec.image or self.observed.trainer_image
        children = manifests.children(
            self.observed.training, self.spec, self.planned, config, image, self.observed.pull_secrets
        )
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


def open_attempt(stage: StageStatus) -> AttemptStatus | None:
    last = stage.attempts[-1] if stage.attempts else None
    return last if last and last.end_time is None else None


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


def known_digests(stages: Sequence[StageStatus], stage: StageStatus) -> dict[str, str]:
    """By URI, of what the pods of a stage may read; somebody else may have written there since."""
    results = {known.result.uri: known.result.digest for known in stages if known.result and known.name != stage.name}
    checkpoint = stage.checkpoint
    return {**results, checkpoint.uri: checkpoint.digest} if checkpoint and checkpoint.digest else results


def restarts_of(stage: StageStatus, fault: str | None) -> int:
    return {"Own": stage.own_restarts, "Infrastructure": stage.infrastructure_restarts}.get(fault or "", 0)


def next_attempt_at(stage: StageStatus) -> float:
    """Seconds since the epoch; at once after the first fault of a kind, then later each time."""
    last = stage.attempts[-1] if stage.attempts else None
    if last is None or last.end_time is None:
        return 0.0
    restarts = restarts_of(stage, last.fault)
    wait = min(2.0 ** (restarts - 1), LONGEST_BACKOFF_SECONDS) if restarts > 1 else 0.0
    return seconds_of(last.end_time) + wait


def final_progress(pods: Sequence[Manifest]) -> Progress | None:
    for pod in pods:
        terminated = terminated_state(pod)
        if pod_index(pod) == 0 and terminated and (word := last_word(terminated)):
            return word.progress
    return None
