"""The status that people read. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from llm_operator.api.app import LLMAppSpec, LLMAppStatus
from llm_operator.api.app_evaluation import AppEvaluationStatus
from llm_operator.api.common import Condition
from llm_operator.api.conditions import find, is_true, timestamp, with_condition
from llm_operator.api.reasons import AppCondition, Reason
from llm_operator.apps import names
from llm_operator.apps.evaluation import Standing
from llm_operator.apps.evaluation import status_of as evaluation_status
from llm_operator.apps.evaluation_manifests import report_of
from llm_operator.apps.knowledge import Base, status_of
from llm_operator.apps.model import Choice
from llm_operator.apps.observe import Observed
from llm_operator.apps.tool_documents import Documents
from llm_operator.kube import labels
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import (
    condition_of,
    container_status,
    ended_state,
    held_up,
    holds,
    is_leaving,
    phase_of,
    terminated_text,
    where,
    without_pod_name,
)
from llm_operator.kube.templates import mark_of

OF_DOCUMENTS = (Reason.TOOL_DOCUMENT_REFUSED, Reason.SOURCE_NOT_FOUND, Reason.CLAIM_NOT_FOUND)
ENDED = ("Failed", "Succeeded")
PHASES = {
    Reason.ROLLING_OUT: "RollingOut",
    Reason.KNOWLEDGE_OUTDATED: "Degraded",
    Reason.HELD_BACK: "HeldBack",
}


@dataclass(frozen=True)
class Decision:
    """What a pass has decided: what answers by which knowledge, and the children as they should be.

    ``asked``: how the newest configuration stands before its questions, if there are any.

    ``rendered``: the pods are made as the spec says, with the ConfigMap ``config``; else they stay as they are.
    """

    choice: Choice
    bases: tuple[Base, ...] = ()
    children: tuple[Manifest, ...] = ()
    create: tuple[Manifest, ...] = ()
    rendered: bool = True
    config: str = ""
    asked: Standing | None = None
    documents: Documents = field(default_factory=Documents)


@dataclass(frozen=True)
class Word:
    """One condition."""

    kind: AppCondition
    holds: bool
    reason: Reason
    message: str


def refused(observed: Observed, old: LLMAppStatus, problems: str, now: float) -> LLMAppStatus:
    """The status of a spec that can't work; what answers already goes on."""
    answers = bool(ready(observed))
    told = [Word(AppCondition.ACCEPTED, holds=False, reason=Reason.INVALID_SPEC, message=problems)]
    told += [
        Word(kind, answers, Reason.INVALID_SPEC, problems) for kind in (AppCondition.AVAILABLE, AppCondition.READY)
    ]
    kept = {"knowledge": old.knowledge, "model": old.model, "evaluation": old.evaluation}
    return world(observed).model_copy(update={**kept, **said(observed, old, told, now)})


def summary(
    observed: Observed, spec: LLMAppSpec, old: LLMAppStatus, decision: Decision, now: float, refusal: str = ""
) -> LLMAppStatus:
    """``refusal``: why the API server does not take a child."""
    choice = decision.choice
    told = [
        accepted(old, decision.documents),
        model_resolved(choice, decision.bases),
        *knowledge_ready(decision.bases),
        *evaluated(spec, decision.asked),
        available(observed, spec, decision),
    ]
    told.append(readiness(observed, told, decision, refusal))
    return world(observed).model_copy(
        update={
            "model": choice.model or old.model,
            "knowledge": [status_of(base, old) for base in decision.bases],
            "evaluation": evaluation_of(observed, spec, old, decision.asked),
            **said(observed, old, told, now),
        }
    )


def accepted(old: LLMAppStatus, documents: Documents) -> Word:
    """While a document was not looked at, the word before stands."""
    before = find(old.conditions, AppCondition.ACCEPTED)
    if documents.reason:
        return Word(AppCondition.ACCEPTED, holds=False, reason=documents.reason, message=documents.message)
    if not documents.known and before and before.reason in OF_DOCUMENTS:
        return Word(AppCondition.ACCEPTED, holds=False, reason=Reason(before.reason), message=before.message)
    return Word(AppCondition.ACCEPTED, holds=True, reason=Reason.VALID, message="the spec is valid")


def world(observed: Observed) -> LLMAppStatus:
    """What is there, whatever the spec says."""
    counts = observed.deployment.get("status") or {}
    return LLMAppStatus(
        url=names.url(observed.app, observed.services),
        replicas=len(living(observed)),
        ready_replicas=len(ready(observed)),
        updated_replicas=counts.get("updatedReplicas", 0),
        selector=names.selector_text(observed.app),
    )


def said(observed: Observed, old: LLMAppStatus, told: Sequence[Word], now: float) -> dict[str, object]:
    """The fields that sum up."""
    generation = observed.app["metadata"].get("generation")
    conditions: list[Condition] = []
    for word in told:
        before = find(old.conditions, word.kind)
        new = Condition(
            type=str(word.kind),
            status="True" if word.holds else "False",
            observed_generation=generation,
            last_transition_time=timestamp(now),
            reason=str(word.reason),
            message=word.message,
        )
        conditions += with_condition([before] if before else [], new)
    return {"observed_generation": generation, "conditions": conditions, "phase": phase(conditions)}


def model_resolved(choice: Choice, bases: Sequence[Base]) -> Word:
    """Whether all models answer, that which writes first."""
    for base in bases:
        embedder = base.embedder
        if choice.holds and embedder and not embedder.holds:
            message = f"spec.knowledge {base.spec.name}, embedding: {embedder.message}"
            return Word(AppCondition.MODEL_RESOLVED, holds=False, reason=embedder.reason, message=message)
    return Word(AppCondition.MODEL_RESOLVED, choice.holds, choice.reason, choice.message)


def knowledge_ready(bases: Sequence[Base]) -> Iterator[Word]:
    """Whether the newest revision of each is in use; nothing if there is none."""
    if not bases:
        return
    behind = [base for base in bases if not base.is_newest]
    shown = behind or bases
    message = "; ".join(f"{base.spec.name}: {base.message}{old_one(base)}" for base in shown)
    yield Word(AppCondition.KNOWLEDGE_READY, not behind, shown[0].reason, message)


def evaluated(spec: LLMAppSpec, asked: Standing | None) -> Iterator[Word]:
    """Whether the newest configuration passes; with gate: none whatever its scores are."""
    if asked is None or spec.evaluation is None:
        return
    passes = asked.holds or (asked.reason == Reason.THRESHOLD_MISSED and spec.evaluation.gate == "none")
    message = f"{asked.message}; the configuration before stays in use" if asked.holds_back else asked.message
    yield Word(AppCondition.EVALUATED, passes, asked.reason, message)


def evaluation_of(
    observed: Observed, spec: LLMAppSpec, old: LLMAppStatus, asked: Standing | None
) -> AppEvaluationStatus | None:
    return (
        None
        if asked is None
        else evaluation_status(asked, old.evaluation, report_of(observed.app, spec, asked.revision))
    )


def old_one(base: Base) -> str:
    used = base.uri.rpartition("/")[2]
    return f"; meanwhile revision {used} is used" if used and not base.is_newest else ""


def readiness(observed: Observed, told: Sequence[Word], decision: Decision, refusal: str) -> Word:
    """Whether questions are answered, and why not; what is behind, beside it."""
    words = {word.kind: word for word in told}
    answers, model = words[AppCondition.AVAILABLE], words[AppCondition.MODEL_RESOLVED]
    if refusal:
        return Word(AppCondition.READY, bool(ready(observed)), Reason.APPLY_REFUSED, refusal)
    if not words[AppCondition.ACCEPTED].holds:
        refused_ = words[AppCondition.ACCEPTED]
        return Word(AppCondition.READY, bool(ready(observed)), refused_.reason, refused_.message)
    if not observed.deployment and not decision.rendered:
        waited = (AppCondition.MODEL_RESOLVED, AppCondition.KNOWLEDGE_READY, AppCondition.EVALUATED)
        first = next((words[kind] for kind in waited if kind in words and not words[kind].holds), model)
        return Word(AppCondition.READY, holds=False, reason=first.reason, message=first.message)
    if not answers.holds or answers.reason == Reason.ROLLING_OUT:
        return Word(AppCondition.READY, answers.holds and model.holds, answers.reason, answers.message)
    if not model.holds:
        return Word(AppCondition.READY, holds=False, reason=model.reason, message=model.message)
    knowledge = words.get(AppCondition.KNOWLEDGE_READY)
    if knowledge and not knowledge.holds:
        return Word(AppCondition.READY, holds=True, reason=Reason.KNOWLEDGE_OUTDATED, message=knowledge.message)
    if decision.asked and decision.asked.holds_back:
        message = words[AppCondition.EVALUATED].message
        return Word(AppCondition.READY, holds=True, reason=Reason.HELD_BACK, message=message)
    return Word(AppCondition.READY, holds=True, reason=Reason.READY, message=answers.message)


def available(observed: Observed, spec: LLMAppSpec, decision: Decision) -> Word:
    """Whether as many pods answer as are wanted, and what holds up those that don't."""
    holds_, reason, message = judge(observed, spec, decision)
    return Word(AppCondition.AVAILABLE, holds_, reason, message)


def judge(observed: Observed, spec: LLMAppSpec, decision: Decision) -> tuple[bool, Reason, str]:
    if not observed.deployment:
        if decision.rendered:
            return False, Reason.STARTING, "its Deployment is made"
        return False, Reason.NOT_READY, "no pod is made before all that it answers by is there"
    answering = len(ready(observed))
    if spec.replicas == 0:
        if remaining := len(server_pods(observed)):
            return False, Reason.SCALING_TO_ZERO, f"spec.replicas is 0; {remaining} pods are still there"
        return False, Reason.SCALED_TO_ZERO, "spec.replicas is 0"
    answers = f"{answering} of {spec.replicas} pods answer"
    if is_rolled_out(observed, decision):
        return True, Reason.READY, answers
    problem = problem_of(observed)
    if answering >= spec.replicas:
        return (
            True,
            Reason.ROLLING_OUT,
            problem[1] if problem else f"{answers}, not all of them of the newest configuration",
        )
    if problem:
        return False, *problem
    return False, Reason.NOT_READY if answering else Reason.STARTING, answers


def problem_of(observed: Observed) -> tuple[Reason, str] | None:
    """What holds up the youngest pod that something holds up, or keeps pods from being made."""
    for pod in sorted(
        living(observed), key=lambda one: str(one["metadata"].get("creationTimestamp", "")), reverse=True
    ):
        if found := pod_problem(pod):
            return found
    failed = condition_of(observed.deployment, "ReplicaFailure")
    if failed and failed["status"] == "True":
        return Reason.FAILED_CREATE, without_pod_name(str(failed.get("message")))
    return None


def pod_problem(pod: Manifest) -> tuple[Reason, str] | None:
    if holds(pod, "Ready"):
        return None
    if waiting := held_up(pod, names.CONTAINER):
        return waiting.reason, waiting.message
    end = ended_state(container_status(pod, names.CONTAINER))
    if end is None:
        return None
    reason = Reason.OUT_OF_MEMORY if end.get("reason") == "OOMKilled" else Reason.NOT_READY
    return reason, f"{where(pod)}, container {names.CONTAINER}, {terminated_text(end)}"


def server_pods(observed: Observed) -> list[Manifest]:
    """Not those of index Jobs."""
    found = ((pod, pod["metadata"].get("labels") or {}) for pod in observed.pods)
    return [pod for pod, told in found if told.get(labels.COMPONENT) == names.SERVER and phase_of(pod) not in ENDED]


def living(observed: Observed) -> list[Manifest]:
    return [pod for pod in server_pods(observed) if not is_leaving(pod)]


def ready(observed: Observed) -> list[Manifest]:
    return [pod for pod in living(observed) if holds(pod, "Ready")]


def is_rolled_out(observed: Observed, decision: Decision) -> bool:
    """Whether the Deployment is as it should be, its newest pods alone are there, as many as wanted, and all answer."""
    deployment = observed.deployment
    wanted_child = next((child for child in decision.children if child["kind"] == "Deployment"), None)
    if wanted_child and mark_of(deployment) != mark_of(wanted_child):
        return False  # this pass applies it
    spec, counts = deployment.get("spec") or {}, deployment.get("status") or {}
    wanted = spec.get("replicas", 1)
    if counts.get("observedGeneration", 0) < deployment.get("metadata", {}).get("generation", 0):
        return False
    told = [counts.get(field, 0) for field in ("replicas", "updatedReplicas", "readyReplicas")]
    return told == [wanted] * 3 and len(ready(observed)) == wanted == len(server_pods(observed))


def phase(conditions: Sequence[Condition]) -> str:
    """One word for `kubectl get`; derived from the conditions and never read back."""
    answers, summed = find(conditions, AppCondition.AVAILABLE), find(conditions, AppCondition.READY)
    if answers is None or summed is None:
        return "Pending"
    if not is_true(conditions, AppCondition.ACCEPTED):
        return "Invalid"
    if answers.reason in (Reason.SCALED_TO_ZERO, Reason.SCALING_TO_ZERO):
        return answers.reason
    if summed.status == "True":
        return PHASES.get(Reason(summed.reason), "Ready")
    if not is_true(conditions, AppCondition.MODEL_RESOLVED):
        return "Waiting"
    knowledge = find(conditions, AppCondition.KNOWLEDGE_READY)
    if answers.reason == Reason.NOT_READY and knowledge and knowledge.status == "False":
        return "Waiting" if knowledge.reason != Reason.INDEXING else "Indexing"
    asked = find(conditions, AppCondition.EVALUATED)
    if answers.reason == Reason.NOT_READY and asked and asked.status == "False" and summed.reason == asked.reason:
        return "Waiting" if asked.reason != Reason.EVALUATING else "Evaluating"
    return "Starting"
