"""Which model a serving serves, or why there is none. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from llm_operator.api.reasons import Reason
from llm_operator.api.resources import Resources
from llm_operator.api.serving import LLMServingSpec, ServedResult, TrainingReference
from llm_operator.kube.plan import Manifest
from llm_operator.serving.families import why_not_served
from llm_operator.serving.observe import Observed
from llm_operator.serving.results import (
    REWARD_MODEL,
    Absence,
    language_models,
    no_stage,
    no_training,
    result_of,
    stage_text,
    stages_of,
    without_claim,
)


@dataclass(frozen=True)
class Choice:
    """``model`` is None while there is none; the reason and message say why."""

    model: ServedResult | None
    reason: Reason
    message: str


def choose_model(observed: Observed, spec: LLMServingSpec) -> Choice:
    named = spec.model.training
    choice = of_training(observed, named, spec.resources) if named else of_uri(spec.model.uri or "")
    if choice.model and (absent := without_claim(choice.model.uri, observed)):
        return none(absent)
    return choice


def of_uri(uri: str) -> Choice:
    return Choice(ServedResult(uri=uri), Reason.MODEL_FOUND, uri)


def of_training(observed: Observed, reference: TrainingReference, resources: Resources) -> Choice:
    training = observed.trainings.get(reference.name)
    if training is None:
        return none(no_training(reference.name, observed.serving["metadata"]["namespace"], "spec.model"))
    models = language_models(training)
    name = reference.stage or (models[-1] if models else "")
    if name not in stages_of(training):
        return none(no_stage(training, name))
    if name not in models:
        return none(not_a_language_model(training, name, models))
    if why := why_not_served(training, resources):
        return Choice(None, Reason.FAMILY_NOT_SERVED, f"{stage_text(training, name)}: {why}")
    found = result_of(training, name)
    if isinstance(found, Absence):
        return none(found)
    model = ServedResult(uri=found.uri, digest=found.digest, step=found.step)
    return Choice(model, Reason.MODEL_FOUND, f"{stage_text(training, name)}, step {found.step}: {found.uri}")


def none(absence: Absence) -> Choice:
    return Choice(None, absence.reason, absence.message)


def not_a_language_model(training: Manifest, name: str, models: list[str]) -> Absence:
    who, others = stage_text(training, name), ", ".join(models) or "none"
    if REWARD_MODEL in stages_of(training)[name]:
        said = f"{who} makes a reward model, which writes no text; name one of {others}"
    else:
        said = (
            f"{who} makes an adapter without its base; name the base in spec.model (its stage, of {others}) and "
            f"{name} under spec.adapters, or set lora.merge in the stage"
        )
    return Absence(Reason.NOT_A_LANGUAGE_MODEL, said)
