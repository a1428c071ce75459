"""What a pass makes of the stage whose turn it is: its attempt goes on, ends, or the next one starts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from llm_operator.api.common import Condition
from llm_operator.api.conditions import seconds_of, timestamp
from llm_operator.api.reasons import LEFT, Reason
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.training_status import AttemptStatus, StageStatus
from llm_operator.kube.fields import at
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import Waiting
from llm_operator.training import manifests
from llm_operator.training.bounds import CURRENT, bounded_stage
from llm_operator.training.claims import claim_problem
from llm_operator.training.failures import NEVER_WHOLE, Failure, Fault, failure_of
from llm_operator.training.gang import (
    Gang,
    attempt_of,
    job_condition,
    job_of,
    over_fact,
    pod_index,
    processes_of,
    terminated_state,
    vanished_fact,
)
from llm_operator.training.known import open_attempt
from llm_operator.training.leftovers import NEWS_SECONDS, unknown
from llm_operator.training.names import child_name
from llm_operator.training.observe import Observed
from llm_operator.training.progress import silence, with_progress, workers
from llm_operator.training.restarts import budget_of, next_attempt_at, with_restart
from llm_operator.training.stages import PlannedStage, claims_of, known_digests, run_uri, stage_config
from llm_operator.training.status import Verdict
from llm_operator.training.tries import missing, number_to_use
from llm_operator.training.waiting import (
    MISSING_LOOK_SECONDS,
    NO_TROUBLE,
    Trouble,
    is_suspended,
    look_again,
    pods_to_end,
    pods_to_start,
    waiting_for,
)
from llm_operator.training.words import Places, believed
from llm_trainer.protocol import Progress

CAUSE_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Outcome:
    """What a pass makes of one stage."""

    stage: StageStatus
    verdict: Verdict
    create: tuple[Manifest, ...] = ()
    requeue_after: float | None = None


@dataclass(frozen=True)
class Pass:
    """One look at the stage whose turn it is. ``spec`` and ``planned`` are None while the spec can't work."""

    observed: Observed
    spec: LLMTrainingSpec | None
    planned: PlannedStage | None
    stages: tuple[StageStatus, ...]
    old_running: Condition | None
    now: float

    @property
    def suspended(self) -> bool:
        """Read by itself: one may suspend what is wrong otherwise."""
        return at(self.observed.training, "spec", "suspend") is True

    def gang(self, stage: StageStatus) -> Gang:
        """Of the newest attempt."""
        job = stage.attempts[-1].job
        return Gang(
            nodes=stage.nodes,
            job=next((found for found in self.observed.jobs if found["metadata"]["name"] == job), None),
            pods=[pod for pod in self.observed.pods if job_of(pod) == job],
            departed=[pod for pod in self.observed.departed if job_of(pod) == job],
            ages=self.observed.ages,
        )

    def decide(self, stage: StageStatus) -> Outcome:
        attempt = open_attempt(stage)
        if attempt is None:
            return self._start(stage)
        gang = self.gang(stage)
        job = gang.job
        if gang.completed or gang.ended_well:
            return self._succeeded(stage, gang)
        if job and is_suspended(job) and not job_condition(job, "Failed"):
            gang = replace(gang, pods=())  # the queue took them
        failure = failure_of(gang, self.now)
        if self.suspended and not failure:
            return self._start(ended(stage, Reason.SUSPENDED, None, "suspended by spec.suspend", self.now))
        if failure:
            return self._after_failure(self._with_last_words(stage, gang), failure)
        if self.planned and self.planned.nodes != stage.nodes:
            said = f"ended to go on with {self.planned.nodes} pods instead of {stage.nodes}, as the spec says now"
            return self._start(ended(stage, Reason.NODES_CHANGED, None, said, self.now))
        if job is None or "deletionTimestamp" in job["metadata"]:
            return self._vanished(stage, attempt, job)
        return self._goes_on(stage, job, gang)

    # --- an attempt is under way ---

    def _goes_on(self, stage: StageStatus, job: Manifest, gang: Gang) -> Outcome:
        number = stage.attempts[-1].number
        ending = any(terminated_state(pod) for pod in gang.pods) or (job.get("status") or {}).get("conditions")
        look = CAUSE_LOOK_SECONDS if ending else None  # what ended may soon show why
        if waiting := waiting_for(gang, job, self._trouble(stage)):
            if is_suspended(job):
                stage = self._with_last_words(stage, self.gang(stage))
            return waits(stage, waiting, look or look_again(gang))
        seen = workers(gang.living, processes_of(job) or (self.planned.processes_per_node if self.planned else 1))
        stage = stage.model_copy(update={"state": "Running", "workers": seen, "workers_left_out": None})
        told = self.observed.progress
        if told and (told.stage, told.attempt) == (stage.name, number):
            stage = with_progress(stage, self._believed(told, stage), self.observed.progress_interval)
        said = f"stage {stage.name}, attempt {number}: {stage.nodes} {'pod runs' if stage.nodes == 1 else 'pods run'}"
        verdict = Verdict(running=True, reason=Reason.RUNNING, message=self._with_silence(said, stage, gang.living))
        return Outcome(stage, verdict, requeue_after=look)  # news of rank 0 wakes the training

    def _trouble(self, stage: StageStatus) -> Trouble:
        if self.observed.trouble is None and self.old_running and self.old_running.reason == Reason.FAILED_CREATE:
            # the operator has just started and has not read the events yet
            about, _, said = self.old_running.message.partition(": ")
            known = about == f"stage {stage.name}, attempt {stage.attempts[-1].number}"
            return Trouble("Job", note=said) if known else NO_TROUBLE
        return self.observed.trouble or NO_TROUBLE

    def _with_silence(self, said: str, stage: StageStatus, pods: Sequence[Manifest]) -> str:
        """That rank 0 can't be asked, in words that are the same at every try, until it answers."""
        first = next((pod for pod in pods if pod_index(pod) == 0), None)
        if self.observed.silence and first:
            return f"{said}; {silence(first, stage, self.observed.silence)}"
        before = self.old_running.message if self.old_running else ""
        if self.observed.progress is None and before.startswith(f"{said}; "):
            return before  # the operator has just started and asked nobody yet
        return said

    def _succeeded(self, stage: StageStatus, gang: Gang) -> Outcome:
        """What counts is the trainer's own end: other containers of a pod may run on, and keep its Job from ending."""
        first = [pod for pod in gang.living if pod_index(pod) == 0]
        if gang.job and first and not any(terminated_state(pod) for pod in first):
            return self._goes_on(stage, gang.job, gang)  # the Job's news was faster than the pod's
        told = self._last_words(stage, gang)
        if told is None or told.result is None:
            # A result published earlier is not the last one. The next attempt finds the last checkpoint and exports it.
            stage = self._with_last_words(stage, gang)
            fault: Fault = "Own" if first else "Infrastructure"
            lost = Failure(fault, Reason.ERROR, "the pods succeeded, but there is no last word of rank 0 with a result")
            return self._after_failure(stage, lost)
        stage = with_progress(stage, told, self.observed.progress_interval, final=True)
        stage = ended(stage, Reason.SUCCEEDED, None, "", self.now)
        stage = stage.model_copy(update={"state": "Succeeded", "end_time": timestamp(self.now)})
        return Outcome(stage, Verdict(running=False, reason=Reason.STARTING, message=f"stage {stage.name} succeeded"))

    def _last_words(self, stage: StageStatus, gang: Gang) -> Progress | None:
        """The final progress of rank 0, which its termination message carries."""
        told = gang.final_progress()
        return self._believed(told, stage) if told else None

    def _with_last_words(self, stage: StageStatus, gang: Gang) -> StageStatus:
        told = self._last_words(stage, gang)
        return with_progress(stage, told, self.observed.progress_interval, final=True) if told else stage

    def _believed(self, told: Progress, stage: StageStatus) -> Progress:
        """A spec that can't work names no places: the status then tells where its training writes."""
        if self.spec is None:
            run = str((self.observed.training.get("status") or {}).get("runUri", ""))
            return believed(told, Places(run, stage.name, None))
        return believed(told, Places(run_uri(self.observed.training, self.spec), stage.name, claims_of(self.spec)))

    def _vanished(self, stage: StageStatus, attempt: AttemptStatus, job: Manifest | None) -> Outcome:
        seen = stage.state == "Running" or self.observed.ages.get(vanished_fact(attempt.job), 0.0) >= NEWS_SECONDS
        if job is None and not seen:
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
        budget = budget_of(self.observed.training)
        if again := with_restart(stage, failure.fault, budget, self.observed.ages):
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
        going = ""
        if stage.attempts:
            last, gang = stage.attempts[-1], self.gang(stage)
            stage = self._with_last_words(stage, gang)
            going = pods_to_end(gang, last) if last.reason in LEFT else ""
        if self.suspended:
            said = "spec.suspend is true; progress up to the last checkpoint is kept"
            verdict = Verdict(running=False, reason=Reason.SUSPENDED, message=f"{said}; {going}" if going else said)
            return Outcome(stage, verdict, requeue_after=MISSING_LOOK_SECONDS if going else None)
        if going:
            said = f"stage {stage.name}: the next attempt starts when the one before has ended; {going}"
            verdict = Verdict(running=False, reason=Reason.TERMINATING, message=said)
            return Outcome(stage, verdict, requeue_after=MISSING_LOOK_SECONDS)
        if self.spec is None or self.planned is None:
            return Outcome(stage, not_started(f"stage {stage.name}: "))
        return self._start_when_it_may(stage, self.spec, self.planned)

    def _start_when_it_may(self, stage: StageStatus, spec: LLMTrainingSpec, planned: PlannedStage) -> Outcome:
        if missing := [claim for claim in claims_of(spec) if claim not in self.observed.claims]:
            said = (
                f"PersistentVolumeClaim {', '.join(missing)} does not exist in namespace "
                f"{self.observed.training['metadata']['namespace']}; create it, the training then goes on"
            )
            return Outcome(stage, Verdict(running=False, reason=Reason.CLAIM_NOT_FOUND, message=said))
        if problem := claim_problem(spec, self.stages, self.observed.claims):
            return Outcome(stage, Verdict(running=False, reason=Reason.CLAIM_ACCESS_MODE, message=problem))
        if self.observed.occupant:
            said = (
                f"LLMTraining {self.observed.occupant} has {run_uri(self.observed.training, spec)} before this one; "
                "delete or suspend it, or wait for its end: this training then takes the folder up"
            )
            verdict = Verdict(running=False, reason=Reason.RUN_FOLDER_IN_USE, message=said)
            return Outcome(stage, verdict, requeue_after=MISSING_LOOK_SECONDS)
        if self._backoff_left(stage) > 0:
            return self._restarts(stage)
        return self._new_attempt(stage, spec, planned)

    def _restarts(self, stage: StageStatus) -> Outcome:
        """The last attempt ended badly, and the next is not there yet."""
        if self.spec is None:
            return Outcome(stage, not_started(f"stage {stage.name}: "))
        last, left = stage.attempts[-1], self._backoff_left(stage)
        when = f" at {timestamp(next_attempt_at(stage))}" if left > 0 else ""
        said = f"stage {stage.name}: attempt {last.number + 1} starts{when}; the last: {last.message}"
        verdict = Verdict(running=False, reason=Reason.RESTARTING, message=said)
        return Outcome(stage, verdict, requeue_after=left)

    def _backoff_left(self, stage: StageStatus) -> float:
        """Seconds until the next attempt; no more than the back-off, should the clock of another replica be wrong."""
        due = next_attempt_at(stage)
        if due <= self.now:
            return 0.0
        last = stage.attempts[-1]
        seen = self.observed.ages.get(over_fact(last.job), 0.0)
        return min(due - self.now, due - seconds_of(last.end_time or last.start_time) - seen)

    def _new_attempt(self, stage: StageStatus, spec: LLMTrainingSpec, planned: PlannedStage) -> Outcome:
        known = next(known for known in self.stages if known.name == stage.name)
        if bounded_stage(stage, CURRENT) != bounded_stage(known, CURRENT):
            return self._restarts(stage)  # the last word of the attempt before has just come: no refusal may lose it
        metadata = self.observed.training["metadata"]
        made = partial(self._made, spec, planned)
        number = number_to_use(self.observed, stage, made)
        strangers = [child for child in unknown(self.observed, self.stages) if child["kind"] == "Job"]
        if going := [job["metadata"]["name"] for job in strangers if attempt_of(job) != (stage.name, number)]:
            # Of a try whose status was lost; since then the spec has changed. It goes as an orphan.
            said = f"stage {stage.name}: Job {', '.join(going)}, of an earlier try, is deleted first"
            return Outcome(stage, Verdict(running=False, reason=Reason.STARTING, message=said))
        job = child_name(metadata["name"], metadata["uid"], stage.name, number)
        attempt = AttemptStatus(number=number, job=job, start_time=timestamp(self.now))
        stage = stage.model_copy(
            update={
                "attempts": [*stage.attempts, attempt],
                "start_time": stage.start_time or timestamp(self.now),
                "end_time": None,
                "nodes": planned.nodes,
            }
        )
        return waits(stage, pods_to_start(stage.nodes), create=missing(self.observed, made(number)))

    def _made(self, spec: LLMTrainingSpec, planned: PlannedStage, number: int) -> tuple[Manifest, ...]:
        """The children of the attempt with this number."""
        results = {known.name: known.result.uri for known in self.stages if known.result}
        stage = next(known for known in self.stages if known.name == planned.name)
        digests = known_digests(self.stages, stage)
        config = stage_config(self.observed.training, spec, planned, number, results, digests)
        image = spec.image or self.observed.trainer_image
        return manifests.children(
            self.observed.training, spec, planned, config, image, self.observed.pull_secrets, self.observed.network
        )


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


def not_started(about: str) -> Verdict:
    said = f"{about}no attempt starts until the spec is corrected, see the condition Accepted"
    return Verdict(running=False, reason=Reason.INVALID_SPEC, message=said)
