"""How the newest configuration stands before its questions: asked by which Job, with which scores. Pure.

Its revision is the hash of all that an answer follows from. The Job is the record of it, as that of an index is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_app.config import Metric
from llm_operator.api.app import LLMAppSpec, LLMAppStatus
from llm_operator.api.app_evaluation import AppEvaluation, AppEvaluationStatus, AppScore
from llm_operator.api.reasons import Reason
from llm_operator.apps import names
from llm_operator.apps.config_maps import Content
from llm_operator.apps.knowledge import last_message, progress
from llm_operator.apps.model import Choice
from llm_operator.apps.observe import Observed
from llm_operator.kube import labels
from llm_operator.kube.fields import at, objects_at
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import holds
from llm_operator.kube.templates import digest_of
from llm_trainer.config import claim_of

FORMAT = 2  # of scores; another one is another revision
RESULT = ("uri", "revision", "digest", "step")  # what a serving tells of a model or an adapter, beside how it stands
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10_000)]


class WordScore(BaseModel):
    model_config = ConfigDict(extra="ignore")
    metric: Metric
    value: Share
    stderr: Share
    count: Count


class Word(BaseModel):
    """The last word of an evaluation's pod."""

    model_config = ConfigDict(extra="ignore")
    questions: Count
    failed: Count = 0
    first_problem: str = Field(default="", alias="firstProblem")
    scores: list[WordScore] = Field(min_length=1, max_length=16)


@dataclass(frozen=True)
class Standing:
    """``revision``: empty while what is asked isn't known. ``makes``: its Job is to be there.

    ``holds_back``: the pods don't get the configuration, or not yet.
    """

    reason: Reason
    message: str
    revision: str = ""
    makes: bool = False
    holds_back: bool = False
    job: Manifest | None = None
    scores: tuple[AppScore, ...] = ()
    questions: int | None = None
    failed: int = 0
    missed: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool | None:
        return not self.missed if self.scores else None

    @property
    def holds(self) -> bool:
        """Of the condition."""
        return self.reason == Reason.EVALUATED


def standing(observed: Observed, spec: LLMAppSpec, choice: Choice, config: str, old: LLMAppStatus) -> Standing | None:
    """``config``: the name of the newest configuration's ConfigMap. None: nothing is asked."""
    evaluation = spec.evaluation
    if evaluation is None:
        return None
    found = judged(observed, spec, evaluation, choice, config, old)
    in_use = config_in_use(observed)
    back = evaluation.gate == "block" and found.passed is not True and config != in_use
    return Standing(**{**vars(found), "holds_back": back})


def judged(
    observed: Observed, spec: LLMAppSpec, evaluation: AppEvaluation, choice: Choice, config: str, old: LLMAppStatus
) -> Standing:
    if problem := missing(observed, evaluation):
        return Standing(*problem)
    named = evaluation.questions.config_map
    if named and not observed.sources.get(named.name, Content()).known:
        return Standing(Reason.EVALUATING, f"ConfigMap {named.name} is not known yet")
    revision = revision_of(observed, evaluation, config, spec.model.serving.adapter)
    job = job_of(observed, revision)
    if job and holds(job, "Complete"):
        return scored(observed, evaluation, revision, job, old)
    if job:
        told = progress(observed, job, Reason.EVALUATING, Reason.EVALUATION_ERROR)
        return Standing(*told, revision, makes=True, job=job)
    if not choice.holds:
        return Standing(Reason.EVALUATING, f"the questions wait for the model: {choice.message}", revision)
    return Standing(Reason.EVALUATING, "its Job is made", revision, makes=True)


def missing(observed: Observed, evaluation: AppEvaluation) -> tuple[Reason, str] | None:
    """What its Job could not even mount."""
    asked = evaluation.questions
    if asked.uri and (claim := str(claim_of(asked.uri))) not in observed.claims:
        said = f"PersistentVolumeClaim {claim} does not exist; create it, or correct spec.evaluation.questions.uri"
        return Reason.CLAIM_NOT_FOUND, said
    named = asked.config_map
    content = observed.sources.get(named.name, Content()) if named else Content()
    if content.problem:
        return Reason.SOURCE_NOT_FOUND, content.problem
    if named and content.known and named.key not in content.keys:
        there = ", ".join(content.some)
        said = f"ConfigMap {named.name} has no key {named.key!r}; its keys are {there}"
        return Reason.SOURCE_NOT_FOUND, said
    return None


def revision_of(observed: Observed, evaluation: AppEvaluation, config: str, adapter: str | None) -> str:
    """Of what answers follow from; thresholds and gate look at the same scores."""
    asked = evaluation.model_dump(mode="json", exclude={"gate", "thresholds"})
    named = evaluation.questions.config_map
    digest = observed.sources[named.name].keys[named.key] if named else ""
    return digest_of([FORMAT, config, asked, digest, served(observed, adapter)])[:12]


def served(observed: Observed, adapter: str | None) -> list[object]:
    """Which results the serving has loaded: with others the same configuration answers otherwise.

    Not how its pods are, which its status tells beside them: a pod that starts anew changes no answer. Read from what
    others may have written.
    """
    named = objects_at(observed.serving, "status", "adapters") if adapter else []
    asked = next((one for one in named if one.get("name") == adapter), None)
    used = at(observed.serving, "status", "model"), asked
    return [[at(one, field) for field in RESULT] if isinstance(one, dict) else None for one in used]


def config_in_use(observed: Observed) -> str:
    """Name of the ConfigMap that the Deployment's pods have; empty if there is none."""
    template = ((observed.deployment.get("spec") or {}).get("template") or {}).get("spec") or {}
    volumes = [one for one in template.get("volumes") or () if one.get("name") == "config"]
    return str((volumes[0].get("configMap") or {}).get("name") or "") if volumes else ""


def job_of(observed: Observed, revision: str) -> Manifest | None:
    return next((job for job in observed.jobs if evaluates(job) == revision), None)


def evaluates(found: Manifest) -> str:
    """The revision that a Job or a ConfigMap of an evaluation is about; empty for those of others."""
    told = found["metadata"].get("labels") or {}
    return str(told.get(names.REVISION, "")) if told.get(labels.COMPONENT) == names.EVALUATION else ""


def scored(observed: Observed, evaluation: AppEvaluation, revision: str, job: Manifest, old: LLMAppStatus) -> Standing:
    """By the word of the pod, or by the status, where it stands when the pod is gone."""
    word, before = read_word(last_message(observed, job)), old.evaluation
    if word is None and not (before and before.revision == revision and before.scores):
        name = job["metadata"]["name"]
        said = f"the pod of Job {name} is gone, and its scores with it; delete the Job to ask again"
        return Standing(Reason.EVALUATION_ERROR, said, revision, makes=True, job=job)
    scores = [AppScore(**one.model_dump()) for one in word.scores] if word else before.scores if before else []
    misses = tuple(missed(evaluation, scores))
    told = word or before
    failed, questions = (told.failed, told.questions) if told else (0, None)
    message = "; ".join(misses) or ", ".join(f"{one.metric} {one.value:.3f}" for one in scores)
    if failed:
        problem = f": {word.first_problem}" if word and word.first_problem else ""
        message += f"; the model refused {failed} of {questions} questions{problem}"
    reason = Reason.THRESHOLD_MISSED if misses else Reason.EVALUATED
    return Standing(
        reason, message, revision, makes=True, job=job, scores=tuple(scores), questions=questions, failed=failed,
        missed=misses,
    )  # fmt: skip


def read_word(message: str) -> Word | None:
    try:
        return Word.model_validate_json(message)
    except ValidationError:
        return None


def missed(evaluation: AppEvaluation, scores: Sequence[AppScore]) -> Iterator[str]:
    values = {one.metric: one for one in scores}
    for threshold in evaluation.thresholds:
        found = values.get(threshold.metric)
        if found is None:
            yield f"{threshold.metric} is asked for, and no question has what it needs"
        elif found.value < threshold.min:
            yield f"{threshold.metric} is {found.value:.3f} ± {found.stderr:.3f}, and {threshold.min:g} is asked for"


def status_of(found: Standing, old: AppEvaluationStatus | None, report: str) -> AppEvaluationStatus:
    """``report``: where its Job writes what was answered."""
    if not found.revision and old:
        return old.model_copy(update={"reason": str(found.reason), "message": found.message})
    return AppEvaluationStatus(
        revision=found.revision,
        passed=found.passed,
        questions=found.questions,
        failed=found.failed,
        scores=list(found.scores),
        job=found.job["metadata"]["name"] if found.job else "",
        report=report if found.scores else "",
        reason=str(found.reason),
        message=found.message,
    )
