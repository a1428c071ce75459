"""The status that people read. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from llm_operator.api.common import Condition
from llm_operator.api.conditions import find, timestamp, with_condition
from llm_operator.api.reasons import Reason, ServingCondition
from llm_operator.api.serving import LLMServingSpec, LLMServingStatus
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import (
    condition_of,
    container_status,
    held_up,
    holds,
    last_line,
    where,
    without_pod_name,
)
from llm_operator.serving.adapters import AdapterChoice, statuses
from llm_operator.serving.annotations import adapters_in, model_in
from llm_operator.serving.model import Choice
from llm_operator.serving.names import CONTAINER, selector_text, url
from llm_operator.serving.observe import Observed
from llm_trainer.protocol import Termination

OF_LAUNCHER = (Reason.OUT_OF_MEMORY, Reason.HANG, Reason.CONFIGURATION_ERROR)


@dataclass(frozen=True)
class Readiness:
    ready: bool
    reason: Reason
    message: str


def refused(observed: Observed, old: LLMServingStatus, problems: str, now: float) -> LLMServingStatus:
    """The status of a spec that can't work; what serves already goes on."""
    choice = Choice(None, Reason.INVALID_SPEC, problems)
    readiness = Readiness(old.ready_replicas > 0, Reason.INVALID_SPEC, problems)
    return old.model_copy(update=said(observed, old, choice, (), readiness, now))


def summary(
    observed: Observed,
    spec: LLMServingSpec,
    old: LLMServingStatus,
    choice: Choice,
    adapters: Sequence[AdapterChoice],
    now: float,
) -> LLMServingStatus:
    deployment = observed.deployments[0] if observed.deployments else {}
    counts = deployment.get("status") or {}
    readiness = judge(observed, spec, choice, deployment)
    answering = newest_answering(observed.pods)
    told = answering["metadata"].get("annotations") or {}
    adapters = [without_those_refused(choice, answering) for choice in adapters]
    return LLMServingStatus(
        url=url(observed.serving),
        model=model_in(told) or old.model,
        adapters=statuses(adapters, [] if refused_in(answering) else adapters_in(told)),
        replicas=counts.get("replicas", 0),
        ready_replicas=counts.get("readyReplicas", 0),
        updated_replicas=counts.get("updatedReplicas", 0),
        selector=selector_text(observed.serving),
    ).model_copy(update=said(observed, old, choice, adapters, readiness, now))


def said(
    observed: Observed,
    old: LLMServingStatus,
    choice: Choice,
    adapters: Sequence[AdapterChoice],
    readiness: Readiness,
    now: float,
) -> dict[str, object]:
    """The fields that sum up."""
    generation = observed.serving["metadata"].get("generation")
    told = [
        (ServingCondition.MODEL_AVAILABLE, choice.model is not None, choice.reason, choice.message),
        *adapters_available(adapters),
        (ServingCondition.READY, readiness.ready, readiness.reason, readiness.message),
    ]
    kinds = {str(kind) for kind, *_ in told}
    conditions = [condition for condition in old.conditions if condition.type in kinds]
    for kind, holds_now, reason, message in told:
        new = Condition.model_validate(
            {
                "type": str(kind),
                "status": "True" if holds_now else "False",
                "observed_generation": generation,
                "last_transition_time": timestamp(now),
                "reason": str(reason),
                "message": message,
            }
        )
        conditions = with_condition(conditions, new)
    return {"observed_generation": generation, "conditions": conditions, "phase": phase(conditions)}


def adapters_available(adapters: Sequence[AdapterChoice]) -> Iterator[tuple[ServingCondition, bool, Reason, str]]:
    """Whether each adapter is there, and what the first one that isn't waits for; nothing if none is asked for."""
    missing = [choice for choice in adapters if choice.adapter is None]
    shown = missing or adapters
    if shown:
        said = "; ".join(f"{choice.name}: {choice.message}" for choice in shown)
        yield ServingCondition.ADAPTERS_AVAILABLE, not missing, shown[0].reason, said


def judge(observed: Observed, spec: LLMServingSpec, choice: Choice, deployment: Manifest) -> Readiness:
    """Whether as many pods answer as are wanted, and what holds up those that don't."""
    counts = deployment.get("status") or {}
    ready, updated = counts.get("readyReplicas", 0), counts.get("updatedReplicas", 0)
    if not deployment:
        reason = Reason.NOT_READY if choice.model is None else Reason.STARTING
        return Readiness(ready=False, reason=reason, message=choice.message)
    if spec.replicas == 0:
        return Readiness(ready=False, reason=Reason.SCALED_TO_ZERO, message="spec.replicas is 0")
    rolled_out = counts.get("observedGeneration", 0) >= deployment["metadata"].get(
        "generation", 0
    ) and updated == spec.replicas == counts.get("replicas", 0)
    problem = next((text for pod in newest_first(observed.pods, deployment) if (text := pod_problem(pod))), None)
    problem = problem or missing_pods(deployment)
    if ready >= spec.replicas and rolled_out:
        return Readiness(ready=True, reason=Reason.READY, message=f"{ready} of {spec.replicas} pods answer")
    said = f"{ready} of {spec.replicas} pods answer, {updated} of the newest model and spec"
    if ready >= spec.replicas:
        return Readiness(ready=True, reason=Reason.ROLLING_OUT, message=problem[1] if problem else said)
    if problem:
        return Readiness(ready=False, reason=problem[0], message=problem[1])
    return Readiness(ready=False, reason=Reason.STARTING if not ready else Reason.NOT_READY, message=said)


def missing_pods(deployment: Manifest) -> tuple[Reason, str] | None:
    """Pods that can't even be made, say because of a quota."""
    failure = condition_of(deployment, "ReplicaFailure")
    if failure and failure["status"] == "True":
        return Reason.FAILED_CREATE, without_pod_name(str(failure.get("message")))
    return None


def newest_first(pods: Sequence[Manifest], deployment: Manifest) -> list[Manifest]:
    """The living before those that ended or leave, those of the newest model before others, younger before older."""
    annotations = deployment["spec"]["template"].get("metadata", {}).get("annotations") or {}
    wanted = (model_in(annotations), adapters_in(annotations))

    def order(pod: Manifest) -> tuple[bool, bool, str]:
        told = pod["metadata"].get("annotations") or {}
        living = (pod.get("status") or {}).get("phase") != "Failed" and "deletionTimestamp" not in pod["metadata"]
        newest = (model_in(told), adapters_in(told)) == wanted
        return living, newest, str(pod["metadata"].get("creationTimestamp", ""))

    return sorted(pods, key=order, reverse=True)


def pod_problem(pod: Manifest) -> tuple[Reason, str] | None:
    whole = pod.get("status") or {}
    if whole.get("phase") == "Failed" and whole.get("reason"):  # the kubelet rejected or evicted it
        said = f"{where(pod)}: {whole['reason']}: {whole.get('message') or 'the kubelet says no more'}"
        return (Reason.EVICTED if whole["reason"] == "Evicted" else Reason.NOT_READY), said
    if found := held_up(pod, CONTAINER):
        return found.reason, found.message
    status = container_status(pod, CONTAINER)
    ended = (status.get("lastState") or {}).get("terminated") or (status.get("state") or {}).get("terminated")
    if ended and not status.get("ready") and "deletionTimestamp" not in pod["metadata"]:
        unsaid = f"{ended.get('reason', 'it ended')}; kubectl logs --previous {pod['metadata']['name']} tells why"
        word = last_word(ended.get("message") or "")
        said = (word.message if word else last_line(ended.get("message") or "")) or unsaid
        text = f"{where(pod)}, container {CONTAINER}, exit code {ended['exitCode']}: {said}"
        if ended.get("reason") == "OOMKilled":
            return Reason.OUT_OF_MEMORY, text
        return next((reason for reason in OF_LAUNCHER if word and reason == word.reason), Reason.NOT_READY), text
    return None


def last_word(message: str) -> Termination | None:
    """What the launcher wrote; None of a container without one, whose message is the end of its log."""
    try:
        return Termination.model_validate_json(message)
    except ValidationError:
        return None


def refused_in(pod: Manifest) -> str | None:
    """Why a pod serves its model without adapters: the launcher ends once with the reason before it does so."""
    ended = (container_status(pod, CONTAINER).get("lastState") or {}).get("terminated") or {}
    word = last_word(ended.get("message") or "")
    return word.message if word and word.reason == Reason.ADAPTER_NOT_SUPPORTED else None


def without_those_refused(choice: AdapterChoice, pod: Manifest) -> AdapterChoice:
    if choice.adapter is None or (why := refused_in(pod)) is None:
        return choice
    return replace(choice, adapter=None, reason=Reason.ADAPTER_NOT_SUPPORTED, message=why)


def newest_answering(pods: Sequence[Manifest]) -> Manifest:
    """The newest ready pod, whose annotations say what it serves."""
    answering = [pod for pod in pods if holds(pod, "Ready") and "deletionTimestamp" not in pod["metadata"]]
    if not answering:
        return {"metadata": {}}
    return max(answering, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))


def phase(conditions: Sequence[Condition]) -> str:
    """One word for `kubectl get`; derived from the conditions and never read back."""
    ready, available = find(conditions, ServingCondition.READY), find(conditions, ServingCondition.MODEL_AVAILABLE)
    if ready is None or available is None:
        return "Pending"
    if available.reason == Reason.INVALID_SPEC:
        return "Invalid"
    if ready.status == "True":
        return "RollingOut" if ready.reason == Reason.ROLLING_OUT else "Ready"
    if ready.reason == Reason.SCALED_TO_ZERO:
        return "ScaledToZero"
    return "Starting" if available.status == "True" else "Waiting"
