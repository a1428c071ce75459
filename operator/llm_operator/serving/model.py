"""Which model a serving serves, or why there is none. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from llm_operator.api.conditions import is_true
from llm_operator.api.reasons import Reason, TrainingCondition
from llm_operator.api.serving import LLMServingSpec, ServedResult, TrainingReference
from llm_operator.api.training import LLMTrainingStatus
from llm_operator.kube.plan import Manifest
from llm_operator.serving.observe import Observed
from llm_trainer.config import claim_of

NO_TEXT = "rewardModel"  # the kind of stage whose result can't be served


@dataclass(frozen=True)
class Choice:
    """``model`` is None while there is none; the reason and message say why."""

    model: ServedResult | None
    reason: Reason
    message: str


def choose_model(observed: Observed, spec: LLMServingSpec) -> Choice:
    choice = of_training(observed, spec.model.training) if spec.model.training else of_uri(spec.model.uri or "")
    if choice.model and (claim := claim_of(choice.model.uri)) not in observed.claims:
        return Choice(None, Reason.CLAIM_NOT_FOUND, f"PersistentVolumeClaim {claim} does not exist; create it")
    return choice


def of_uri(uri: str) -> Choice:
    return Choice(ServedResult(uri=uri), Reason.MODEL_FOUND, uri)


def of_training(observed: Observed, reference: TrainingReference) -> Choice:
    training = observed.training
    if training is None:
        namespace = observed.serving["metadata"]["namespace"]
        said = f"LLMTraining {reference.name} does not exist in namespace {namespace}; create it or correct spec.model"
        return Choice(None, Reason.TRAINING_NOT_FOUND, said)
    stages = (training.get("spec") or {}).get("stages") or ()
    names = [stage["name"] for stage in stages]
    writers = [stage["name"] for stage in stages if NO_TEXT not in stage]
    name = reference.stage or (writers[-1] if writers else "")
    if name not in names:
        said = f"LLMTraining {reference.name} has no stage {name!r}; its stages are {', '.join(names)}"
        return Choice(None, Reason.STAGE_NOT_FOUND, said)
    if name not in writers:
        said = f"stage {name} of LLMTraining {reference.name} makes a reward model, which writes no text; "
        return Choice(None, Reason.NOT_A_LANGUAGE_MODEL, f"{said}name one of {', '.join(writers) or 'none'}")
    return of_stage(training, name)


def of_stage(training: Manifest, name: str) -> Choice:
    status = LLMTrainingStatus.model_validate(training.get("status") or {})
    found = next((stage.result for stage in status.stages if stage.name == name), None)
    who = f"stage {name} of LLMTraining {training['metadata']['name']}"
    if found and found.kind == "adapter":
        said = f"{who} made an adapter for {found.base}; set lora.merge in the stage to serve it"
        return Choice(None, Reason.NOT_A_LANGUAGE_MODEL, said)
    if found:
        model = ServedResult(uri=found.uri, digest=found.digest, step=found.step)
        return Choice(model, Reason.MODEL_FOUND, f"{who}, step {found.step}: {found.uri}")
    if is_true(status.conditions, TrainingCondition.FAILED):
        said = f"{who} has no result and the training failed; see kubectl describe llmtraining"
        return Choice(None, Reason.TRAINING_FAILED, said)
    return Choice(None, Reason.TRAINING_NOT_FINISHED, f"{who} has no result yet; the training is {status.phase}")
