"""The status that people read. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from llm_operator.api.common import Condition
from llm_operator.api.conditions import find, timestamp, with_condition
from llm_operator.api.reasons import Reason, ServingCondition
from llm_operator.api.serving import LLMServingSpec, LLMServingStatus
from llm_operator.kube.drift import lost_fields
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import (
    condition_of,
    container_status,
    held_up,
    last_line,
    where,
    without_pod_name,
)
from llm_operator.kube.templates import mark_of
from llm_operator.serving.adapters import AdapterChoice, statuses
from llm_operator.serving.annotations import adapters_in, model_in
from llm_operator.serving.chat_template import UNKNOWN
from llm_operator.serving.fetching import Fetch
from llm_operator.serving.fleet import Fleet, age_of, annotations_of, fleet_of
from llm_operator.serving.model import Choice
from llm_operator.serving.names import CONTAINER, selector_text, url
from llm_operator.serving.observe import Observed
from llm_operator.serving.pace import Held
from llm_operator.serving.rollout import Rollout
from llm_operator.serving.startup import startup_of
from llm_trainer.protocol import Termination

OF_LAUNCHER = (Reason.OUT_OF_MEMORY, Reason.HANG, Reason.CONFIGURATION_ERROR)


@dataclass(frozen=True)
class Decision:
    """What a pass has decided: what is served, how its pods are replaced, and the children as they should be.

    ``rendered``: the pods are made as the spec says; else they stay as they are.
    """

    choice: Choice
    adapters: tuple[AdapterChoice, ...]
    fleet: Fleet
    rollout: Rollout
    children: tuple[Manifest, ...] = ()
    rendered: bool = True
    held: Held | None = None  # a newer result waits
    fetches: tuple[Fetch, ...] = ()
    create: tuple[Manifest, ...] = ()  # Jobs that fetch


@dataclass(frozen=True)
class Word:
    """One condition."""

    kind: ServingCondition
    holds: bool
    reason: str
    message: str


def refused(observed: Observed, old: LLMServingStatus, problems: str, now: float) -> LLMServingStatus:
    """The status of a spec that can't work; what serves already goes on."""
    fleet = fleet_of(observed.pods, observed.deployment, None)
    told = (
        Word(ServingCondition.MODEL_AVAILABLE, holds=False, reason=Reason.INVALID_SPEC, message=problems),
        Word(ServingCondition.READY, holds=bool(fleet.ready), reason=Reason.INVALID_SPEC, message=problems),
    )
    return world(observed, old, fleet).model_copy(
        update={"adapters": old.adapters, "inputs": old.inputs, **said(observed, old, told, now)}
    )


def summary(
    observed: Observed,
    spec: LLMServingSpec,
    old: LLMServingStatus,
    decision: Decision,
    now: float,
    refusal: str = "",
) -> LLMServingStatus:
    """``refusal``: why the API server does not take a child."""
    choice, fleet = decision.choice, decision.fleet
    answering = newest_answering(fleet)
    adapters = [without_those_refused(adapter, answering) for adapter in decision.adapters]
    told = (
        Word(ServingCondition.MODEL_AVAILABLE, choice.model is not None, choice.reason, model_message(choice, fleet)),
        *adapters_available(adapters),
        *progressing(observed, spec, old, decision, refusal),
        Word(ServingCondition.READY, bool(fleet.ready), Reason.APPLY_REFUSED, refusal)
        if refusal
        else readiness(observed, spec, decision),
    )
    loaded = [] if refused_in(answering) else adapters_in(annotations_of(answering))
    return world(observed, old, fleet).model_copy(
        update={
            "adapters": statuses(adapters, loaded),
            "inputs": [one.said for one in decision.fetches],
            **said(observed, old, told, now),
        }
    )


def world(observed: Observed, old: LLMServingStatus, fleet: Fleet) -> LLMServingStatus:
    """What is there, whatever the spec says."""
    return LLMServingStatus(
        url=url(observed.serving, observed.services[0]) if observed.services else None,
        model=model_in(annotations_of(newest_answering(fleet))) or old.model,
        startup=startup_of(observed.pods, observed.started, observed.start, old.startup),
        replicas=len(fleet.living),
        ready_replicas=len(fleet.ready),
        updated_replicas=len(fleet.newest),
        selector=selector_text(observed.serving),
    )


def said(observed: Observed, old: LLMServingStatus, told: Sequence[Word], now: float) -> dict[str, object]:
    """The fields that sum up."""
    generation = observed.serving["metadata"].get("generation")
    conditions: list[Condition] = []
    for word in told:
        before = find(old.conditions, word.kind)
        new = Condition.model_validate(
            {
                "type": str(word.kind),
                "status": "True" if word.holds else "False",
                "observed_generation": generation,
                "last_transition_time": timestamp(now),
                "reason": str(word.reason),
                "message": word.message,
            }
        )
        conditions += with_condition([before] if before else [], new)
    return {"observed_generation": generation, "conditions": conditions, "phase": phase(conditions)}


def model_message(choice: Choice, fleet: Fleet) -> str:
    serves = fleet.serves()
    return choice.message if choice.model or not serves else f"{choice.message}; meanwhile {served_text(serves)}"


def served_text(serves: Counter[str]) -> str:
    """Which ready pods serve what, as a rollout leaves it at this moment."""
    return " and ".join(f"{number} of the pods serve{'s' * (number == 1)} {what}" for what, number in serves.items())


def adapters_available(adapters: Sequence[AdapterChoice]) -> Iterator[Word]:
    """Whether each adapter is there, and what the first one that isn't waits for; nothing if none is asked for."""
    missing = [choice for choice in adapters if choice.adapter is None]
    shown = missing or adapters
    if shown:
        said = "; ".join(f"{choice.name}: {choice.message}" for choice in shown)
        yield Word(ServingCondition.ADAPTERS_AVAILABLE, not missing, shown[0].reason, said)


def readiness(observed: Observed, spec: LLMServingSpec, decision: Decision) -> Word:
    """Whether as many pods answer as are wanted, and what holds up those that don't."""
    holds, reason, message = judge(observed, spec, decision)
    return Word(ServingCondition.READY, holds, reason, message)


def judge(observed: Observed, spec: LLMServingSpec, decision: Decision) -> tuple[bool, Reason, str]:
    fleet, choice = decision.fleet, decision.choice
    if not observed.deployment:
        missing = observed.chat_template.problem if choice.model else ""
        reason = Reason.STARTING if choice.model and not missing else Reason.NOT_READY
        return False, reason, missing or choice.message
    if spec.replicas == 0:
        if remaining := len(fleet.living) + len(fleet.leaving):
            return False, Reason.SCALING_TO_ZERO, f"spec.replicas is 0; {remaining} pods are still there"
        return False, Reason.SCALED_TO_ZERO, "spec.replicas is 0"
    ready, serves = len(fleet.ready), fleet.serves()
    answers = f"{ready} of {spec.replicas} pods answer"
    held = held_back(observed, decision)
    if is_rolled_out(observed, spec, fleet) and not held:
        return True, Reason.READY, answers
    problem = problem_of(observed, fleet)
    said = f"{answers}, {len(fleet.newest)} of the newest model and spec"
    if ready >= spec.replicas:
        message = problem[1] if problem else f"{answers}; {held}" if held else said
        return True, Reason.ROLLING_OUT, f"{message}; {served_text(serves)}" if len(serves) > 1 else message
    if problem:
        return False, *problem
    return False, Reason.NOT_READY if ready else Reason.STARTING, said


def progressing(
    observed: Observed, spec: LLMServingSpec, old: LLMServingStatus, decision: Decision, refusal: str
) -> Iterator[Word]:
    """Whether the pods of the newest model and spec come; nothing without a Deployment."""
    if not observed.deployment:
        return
    before = find(old.conditions, ServingCondition.PROGRESSING)
    if held := held_back(observed, decision):
        stuck = decision.choice.model is None or bool(observed.chat_template.problem)
        reason = Reason.ROLLOUT_STUCK if stuck else Reason.ROLLING_OUT
        yield Word(ServingCondition.PROGRESSING, not stuck, reason, held)
    elif refusal and not is_applied(observed.deployment, decision):
        yield Word(ServingCondition.PROGRESSING, holds=False, reason=Reason.ROLLOUT_STUCK, message=refusal)
    elif before and spec.chat_template and spec.chat_template.config_map and observed.chat_template == UNKNOWN:
        yield Word(ServingCondition.PROGRESSING, before.status == "True", before.reason, before.message)
    else:
        yield Word(ServingCondition.PROGRESSING, *rollout_of(observed, spec, decision))


def held_back(observed: Observed, decision: Decision) -> str:
    """Why the pods are not made as the spec says; empty if they are."""
    if decision.rendered:
        return ""
    if decision.choice.model is None:
        return decision.choice.message
    return observed.chat_template.problem or "the Service, or the ConfigMap of spec.chatTemplate, is not known yet"


def rollout_of(observed: Observed, spec: LLMServingSpec, decision: Decision) -> tuple[bool, Reason, str]:
    fleet, rollout, deployment = decision.fleet, decision.rollout, observed.deployment
    name = deployment["metadata"]["name"]
    if is_rolled_out(observed, spec, fleet) and not observed.chat_template.problem:
        if decision.held:
            return True, Reason.RESULT_WAITS, waiting_result(observed)
        return True, Reason.ROLLED_OUT, f"{spec.replicas} pods of the newest model and spec"
    if (deployment.get("spec") or {}).get("paused"):
        return False, Reason.PAUSED, f"Deployment {name} is paused; kubectl rollout resume deployment/{name}"
    if spec.chat_template and (missing := observed.chat_template.problem):
        return False, Reason.ROLLOUT_STUCK, missing
    if changed := changed_replicas(deployment, decision):
        return False, Reason.ROLLOUT_STUCK, changed
    makes_room = rollout.replaces and (fleet.older or fleet.leaving)
    problem = problem_of(observed, Fleet(fleet.newest, ended=fleet.ended))
    if problem and not (makes_room and problem[0] == Reason.UNSCHEDULABLE):
        return False, Reason.ROLLOUT_STUCK, problem[1] + way_out(problem[0], observed, decision)
    if rollout.replaces:
        said = "no node holds one more pod, so an old one goes before its successor starts; spec.strategy can fix it"
        return True, Reason.REPLACING_PODS, said
    late = condition_of(deployment, "Progressing") or {}
    if late.get("reason") == "ProgressDeadlineExceeded" and is_current(deployment):
        said = f"no new pod has answered for {spec.startup_timeout_seconds} s (spec.startupTimeoutSeconds)"
        return False, Reason.ROLLOUT_STUCK, said
    return True, Reason.ROLLING_OUT, f"{len(fleet.newest)} of {spec.replicas} pods are of the newest model and spec"


def waiting_result(observed: Observed) -> str:
    """Without a time: the words stand while it waits."""
    return (
        f"a newer result waits: because of one the pods are replaced every {observed.rollout_interval:g} s at most "
        "(the operator's setting rollout_interval_seconds); a change of the spec goes at once"
    )


def changed_replicas(deployment: Manifest, decision: Decision) -> str:
    """Why a Deployment that was applied as it should be is other than that; empty if it isn't."""
    wanted, there = deployment_of(decision), (deployment.get("spec") or {}).get("replicas")
    if wanted is None or there is None or there == wanted["spec"]["replicas"]:
        return ""
    if not is_applied(deployment, decision) or any(lost_fields(wanted, deployment)):
        return ""
    name = deployment["metadata"]["name"]
    return (
        f"Deployment {name} has {there} replicas and not {wanted['spec']['replicas']}, though it was applied so: "
        "an admission webhook or policy changes it"
    )


def deployment_of(decision: Decision) -> Manifest | None:
    return next((child for child in decision.children if child["kind"] == "Deployment"), None)


def is_applied(deployment: Manifest, decision: Decision) -> bool:
    """Whether the Deployment that is there was applied as it should be."""
    wanted = deployment_of(decision)
    return wanted is None or mark_of(deployment) == mark_of(wanted)


def way_out(reason: Reason, observed: Observed, decision: Decision) -> str:
    """What helps a new pod that finds no room beside an old one."""
    if reason != Reason.UNSCHEDULABLE or not decision.fleet.older:
        return ""
    if decision.rollout.wait is not None:
        return f"; if no room is found within {observed.surge_timeout:g} s, an old pod goes first"
    return "; spec.strategy.rollingUpdate with maxSurge: 0 and maxUnavailable: 1 lets an old pod go first"


def is_rolled_out(observed: Observed, spec: LLMServingSpec, fleet: Fleet) -> bool:
    """By the pods and by the Deployment, which alone knows of a change that others made to its template."""
    counts = observed.deployment.get("status") or {}
    updated = counts.get("updatedReplicas", 0)
    return fleet.rolled_out(spec.replicas) and is_current(observed.deployment) and updated == spec.replicas


def is_current(deployment: Manifest) -> bool:
    """Whether its status is of its spec."""
    seen: int = (deployment.get("status") or {}).get("observedGeneration", 0)
    generation: int = deployment["metadata"].get("generation", 0)
    return seen >= generation


def problem_of(observed: Observed, fleet: Fleet) -> tuple[Reason, str] | None:
    """What holds up the first pod that something holds up: of the newest template first, of those that ended last."""
    pods = (*youngest_first(fleet.newest), *youngest_first(fleet.older), *youngest_first(fleet.ended))
    found = next((text for pod in pods if (text := pod_problem(pod))), None)
    return found or missing_pods(observed.deployment)


def youngest_first(pods: Sequence[Manifest]) -> list[Manifest]:
    return sorted(pods, key=age_of, reverse=True)


def missing_pods(deployment: Manifest) -> tuple[Reason, str] | None:
    """Pods that can't even be made, say because of a quota."""
    failure = condition_of(deployment, "ReplicaFailure")
    if failure and failure["status"] == "True":
        return Reason.FAILED_CREATE, without_pod_name(str(failure.get("message")))
    return None


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
        message = ended.get("message") or ""
        word = last_word(message)
        if word and word.reason == Reason.ADAPTER_NOT_SUPPORTED:
            if ended.get("exitCode") == word.exit_code:  # the one end that only says so
                return None
            word, message = None, ""  # written at the start: the end left no time for a word of its own
        said = (word.message if word else last_line(message)) or unsaid
        text = f"{where(pod)}, container {CONTAINER}, exit code {ended.get('exitCode')}: {said}"
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
    """Why a pod serves its model without adapters: each end of its container tells it, and the first does only that."""
    ended = (container_status(pod, CONTAINER).get("lastState") or {}).get("terminated") or {}
    word = last_word(ended.get("message") or "")
    return word.without_adapters if word else None


def without_those_refused(choice: AdapterChoice, pod: Manifest) -> AdapterChoice:
    if choice.adapter is None or (why := refused_in(pod)) is None:
        return choice
    return replace(choice, adapter=None, reason=Reason.ADAPTER_NOT_SUPPORTED, message=why)


def newest_answering(fleet: Fleet) -> Manifest:
    """The newest ready pod, whose annotations say what it serves; an empty one if none is ready."""
    newest = max(
        fleet.ready,
        key=lambda pod: (pod in fleet.newest, age_of(pod)),
        default=None,
    )
    return newest or {"metadata": {}}


def phase(conditions: Sequence[Condition]) -> str:
    """One word for `kubectl get`; derived from the conditions and never read back."""
    ready, available = find(conditions, ServingCondition.READY), find(conditions, ServingCondition.MODEL_AVAILABLE)
    if ready is None or available is None:
        return "Pending"
    if available.reason == Reason.INVALID_SPEC:
        return "Invalid"
    if ready.status == "True":
        return "RollingOut" if ready.reason == Reason.ROLLING_OUT else "Ready"
    if ready.reason in (Reason.SCALED_TO_ZERO, Reason.SCALING_TO_ZERO):
        return str(ready.reason)
    return "Starting" if available.status == "True" else "Waiting"
