"""Which model a serving serves, or why there is none. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_operator.api.reasons import Reason
from llm_operator.api.serving import LLMServingSpec, LLMServingStatus, ServedResult, TrainingReference
from llm_operator.kube.plan import Manifest
from llm_operator.serving.annotations import model_in
from llm_operator.serving.families import why_it_does_not_fit, why_not_served
from llm_operator.serving.fetching import Fetch, Problem, served_of
from llm_operator.serving.fleet import template_metadata
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
    unreadable,
    without_claim,
)
from llm_trainer.config import is_remote


@dataclass(frozen=True)
class Choice:
    """``model`` is None while there is none; the reason and message say why.

    ``refuses_spec``: no pod of this spec would answer, so none is made, and what serves stays as it is.
    """

    model: ServedResult | None
    reason: Reason
    message: str
    refuses_spec: bool = False


def choose_model(observed: Observed, spec: LLMServingSpec, fetches: Sequence[Fetch] = ()) -> Choice:
    if absent := without_cache(observed, spec):
        return Choice(None, absent.reason, absent.message, refuses_spec=True)
    named = spec.model.training
    choice = of_training(observed, named, spec) if named else of_uri(spec.model.uri or "", fetches)
    if choice.model and not choice.model.revision and (absent := without_claim(choice.model.uri, observed)):
        return none(absent)
    return choice


def without_cache(observed: Observed, spec: LLMServingSpec) -> Absence | None:
    if spec.cache is None or (claim := spec.cache.persistent_volume_claim.claim_name) in observed.claims:
        return None
    return Absence(Reason.CLAIM_NOT_FOUND, f"PersistentVolumeClaim {claim} of spec.cache does not exist; create it")


def served_so_far(observed: Observed, old: LLMServingStatus) -> ServedResult | None:
    """What the pods serve, which goes on while what is wanted isn't there; in all else it follows the spec."""
    told = (template_metadata(observed.deployment).get("annotations")) or {}
    return model_in(told) or old.model


def of_uri(uri: str, fetches: Sequence[Fetch]) -> Choice:
    if is_remote(uri):
        found = served_of(fetches, uri)
        if isinstance(found, Problem):
            return Choice(None, found.reason, f"{uri}: {found.message}", refuses_spec=True)
        return Choice(found, Reason.MODEL_FOUND, f"{uri}, revision {found.revision}")
    return Choice(ServedResult(uri=uri), Reason.MODEL_FOUND, uri)


def of_training(observed: Observed, reference: TrainingReference, spec: LLMServingSpec) -> Choice:
    training = observed.trainings.get(reference.name)
    if training is None:
        return none(no_training(reference.name, observed.serving["metadata"]["namespace"], "spec.model"))
    if absent := unreadable(training):
        return none(absent)
    models = language_models(training)
    name = reference.stage or (models[-1] if models else "")
    if name not in stages_of(training):
        return none(no_stage(training, name))
    if name not in models:
        return none(not_a_language_model(training, name, models))
    if why := why_not_served(training, spec):
        return Choice(None, Reason.FAMILY_NOT_SERVED, f"{stage_text(training, name)}: {why}", refuses_spec=True)
    if why := why_it_does_not_fit(training, spec):
        return Choice(None, Reason.INVALID_SPEC, f"{stage_text(training, name)}: {why}", refuses_spec=True)
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
