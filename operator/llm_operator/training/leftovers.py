"""Children that nobody needs any more. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llm_operator.api.conditions import find
from llm_operator.api.reasons import LEFT, Reason, TrainingCondition
from llm_operator.api.training_status import AttemptStatus, LLMTrainingStatus, StageStatus
from llm_operator.kube.kinds import JOB, NETWORK_POLICY
from llm_operator.kube.plan import Delete, Manifest
from llm_operator.kube.pods import is_leaving, phase_of
from llm_operator.training.gang import attempt_of, job_condition, job_of, over_fact, unknown_fact
from llm_operator.training.observe import Observed
from llm_operator.training.status import is_terminal

ENDED = ("Succeeded", "Failed")
DECIDED = ("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget")  # the Job makes no more pods
NEWS_SECONDS = 10.0  # by which one watch may be behind another
OVER_QUOTA = "exceeded quota"  # the API server's words
SETTLE_SECONDS = 10.0  # in which the pods of an attempt that has ended end too, if they do by themselves


def superseded(observed: Observed, old: LLMTrainingStatus) -> tuple[list[Manifest], float | None]:
    """Children of attempts that ended, as the status already says, and the seconds until there may be more.

    Those that ended well keep their logs, and so does the last attempt of a training that failed, unless pods of theirs
    run on, as a container that is not ours doesn't end with the trainer, or a quota has no room for what is to come.
    """
    known = attempts_by_place(old.stages)
    gone: list[Manifest] = []
    later: list[float] = []
    for child in remaining(observed):
        attempt = known.get(attempt_of(child))
        if attempt is None or attempt.end_time is None:
            continue
        if shields(observed, child):
            continue
        if not keeps_logs(old, attempt):
            gone.append(child)
        elif runs_on(observed, attempt.job):
            left = SETTLE_SECONDS - observed.ages.get(over_fact(attempt.job), 0.0)
            gone += [child] if left <= 0 else []
            later += [left] if left > 0 else []
    return gone, min(later, default=None)


def keeps_logs(status: LLMTrainingStatus, attempt: AttemptStatus) -> bool:
    """Whether a user may still want to read them."""
    running = find(status.conditions, TrainingCondition.RUNNING)
    if running and running.reason == Reason.APPLY_REFUSED and OVER_QUOTA in running.message:
        return False
    last = (stage.attempts[-1] for stage in status.stages if stage.state == "Failed" and stage.attempts)
    return attempt.reason == Reason.SUCCEEDED or (is_terminal(status) and attempt in last)


def shields(observed: Observed, child: Manifest) -> bool:
    """Whether it is a NetworkPolicy with pods that have not ended, and would be open without it; their end wakes us."""
    job = child["metadata"]["name"]  # that of its Job too
    pods = (pod for pod in observed.pods if child["kind"] == NETWORK_POLICY.name and job_of(pod) == job)
    return any(phase_of(pod) not in ENDED for pod in pods)


def runs_on(observed: Observed, job: str) -> bool:
    """Whether a pod of this Job takes up room, or the Job may make one."""
    pods = [pod for pod in observed.pods if job_of(pod) == job]
    ended = sum(phase_of(pod) in ENDED for pod in pods)
    if any(not is_leaving(pod) and phase_of(pod) not in ENDED for pod in pods):
        return True
    found = next((there for there in observed.jobs if there["metadata"]["name"] == job), None)
    if found is None or any(job_condition(found, kind) for kind in DECIDED):
        return False
    return ended < (found["spec"].get("completions") or 1)


def unknown(observed: Observed, stages: Iterable[StageStatus]) -> list[Manifest]:
    """Children of attempts that the status doesn't know."""
    known = attempts_by_place(stages)
    return [child for child in remaining(observed) if attempt_of(child) not in known]


def orphaned(observed: Observed, new: LLMTrainingStatus) -> tuple[list[Manifest], float | None]:
    """Children of attempts that the status doesn't know, nor will after this pass; and when to look again.

    A pass made them and died before it could say so, and since then things have changed; or they are too old to be
    shown. One that was seen just now may be no orphan: of two watches one may be late, and the status that knows it be
    on its way.
    """
    orphans = [child for child in unknown(observed, new.stages) if not shields(observed, child)]
    surely = [child for child in orphans if observed.ages.get(unknown_fact(child), 0.0) >= NEWS_SECONDS]
    return surely, NEWS_SECONDS if surely != orphans else None


def remaining(observed: Observed) -> Iterator[Manifest]:
    """Children that nobody is deleting."""
    for child in observed.children:
        if "deletionTimestamp" not in child["metadata"]:
            yield child


def attempts_by_place(stages: Iterable[StageStatus]) -> dict[tuple[str, int], AttemptStatus]:
    """Attempts by stage and number."""
    return {(stage.name, attempt.number): attempt for stage in stages for attempt in stage.attempts}


def ended_attempts(status: LLMTrainingStatus) -> set[tuple[str, int]]:
    """By stage and number."""
    return {place for place, attempt in attempts_by_place(status.stages).items() if attempt.end_time}


def deletions(children: Iterable[Manifest], status: LLMTrainingStatus) -> tuple[Delete, ...]:
    known = attempts_by_place(status.stages)
    found = (
        Delete(
            child["apiVersion"], child["kind"], child["metadata"]["name"], child["metadata"]["uid"],
            foreground=child["kind"] == JOB.name and may_write(known.get(attempt_of(child))),
        )
        for child in children
    )  # fmt: skip
    return tuple(dict.fromkeys(found))


def may_write(attempt: AttemptStatus | None) -> bool:
    """Whether pods of it commit a checkpoint yet, which the next attempt waits for. Whose they are, their Job alone
    tells, so it goes after them. One that has failed goes at once and makes room in a quota.
    """
    return attempt is None or attempt.reason in LEFT
