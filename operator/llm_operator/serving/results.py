"""What the stages of a training yield, and whether it is there. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from llm_operator.api.conditions import is_true
from llm_operator.api.reasons import Reason, TrainingCondition
from llm_operator.api.training_status import LLMTrainingStatus, Result
from llm_operator.kube.fields import list_at, objects_at, text_at
from llm_operator.kube.plan import Manifest
from llm_operator.serving.observe import Observed
from llm_trainer.config import Lora, claim_of, local_path

REWARD_MODEL = "rewardModel"  # the kind of stage whose result writes no text


@dataclass(frozen=True)
class Absence:
    """Why there is nothing to serve."""

    reason: Reason
    message: str


def stages_of(training: Manifest) -> dict[str, Manifest]:
    """By name, in order; without those that have none."""
    return {text_at(stage, "name"): stage for stage in objects_at(training, "spec", "stages") if text_at(stage, "name")}


def lora_of(stage: Manifest) -> Lora | None:
    """The adapter that a stage trains, merged or not."""
    return Lora.model_validate(stage["lora"]) if stage.get("lora") is not None else None


def rank_of(training: Manifest, name: str) -> int:
    """Of what a stage publishes: an adapter that goes on with another holds that too, with its rank."""
    stages = stages_of(training)
    lora, rank = lora_of(stages[name]), 0
    while lora and not lora.merge:
        rank += lora.rank
        before = start_of(stages, name)
        if before is None:
            break
        name, lora = before, lora_of(stages[before])
    return rank


def start_of(stages: dict[str, Manifest], name: str) -> str | None:
    """The stage from whose result a stage starts, as `api.resolve.stage_model` finds it."""
    stage, names = stages[name], list(stages)
    if stage.get("model"):
        named = text_at(stage, "model", "stage")
        return named if named in names[: names.index(name)] else None
    earlier = [other for other in names[: names.index(name)] if REWARD_MODEL not in stages[other]]
    return earlier[-1] if earlier and "pretrain" not in stage else None


def unreadable(training: Manifest) -> Absence | None:
    """Why nothing can be told of a training: somebody has edited its status, or a later version has made it."""
    try:
        LLMTrainingStatus.model_validate(training.get("status") or {})
        for stage in stages_of(training).values():
            lora_of(stage)
    except ValidationError as error:
        told = error.errors()[0]
        return not_read(training, f"{told['msg']} ({'.'.join(str(part) for part in told['loc'])})")
    if len(stages_of(training)) != len(list_at(training, "spec", "stages")):
        return not_read(training, "each of spec.stages must be an object with a name of its own")
    return None


def not_read(training: Manifest, why: str) -> Absence:
    said = f"LLMTraining {training['metadata']['name']} can't be read: {why}; correct its status or stage"
    return Absence(Reason.TRAINING_NOT_FINISHED, said)


def language_models(training: Manifest) -> list[str]:
    """The stages whose results vLLM can serve by themselves."""
    return [
        name
        for name, stage in stages_of(training).items()
        if REWARD_MODEL not in stage and not ((lora := lora_of(stage)) and not lora.merge)
    ]


def without_claim(uri: str, observed: Observed) -> Absence | None:
    """Why nothing can be mounted of a URI, which may be what a status says that somebody has edited."""
    try:
        local_path(uri)
    except ValueError as error:
        return Absence(Reason.CLAIM_NOT_FOUND, f"{error}; correct it where it is written")
    if (claim := claim_of(uri)) in observed.claims:
        return None
    return Absence(Reason.CLAIM_NOT_FOUND, f"PersistentVolumeClaim {claim} does not exist; create it")


def no_training(name: str, namespace: str, field: str) -> Absence:
    said = f"LLMTraining {name} does not exist in namespace {namespace}; create it or correct {field}"
    return Absence(Reason.TRAINING_NOT_FOUND, said)


def no_stage(training: Manifest, name: str) -> Absence:
    said = f"LLMTraining {training['metadata']['name']} has no stage {name!r}; "
    return Absence(Reason.STAGE_NOT_FOUND, f"{said}its stages are {', '.join(stages_of(training))}")


def stage_text(training: Manifest, name: str) -> str:
    return f"stage {name} of LLMTraining {training['metadata']['name']}"


def result_of(training: Manifest, name: str) -> Result | Absence:
    """The newest result of a stage that exists."""
    status = LLMTrainingStatus.model_validate(training.get("status") or {})
    if found := next((stage.result for stage in status.stages if stage.name == name), None):
        return found
    who = stage_text(training, name)
    if is_true(status.conditions, TrainingCondition.FAILED):
        said = f"{who} has no result and the training failed; see kubectl describe llmtraining"
        return Absence(Reason.TRAINING_FAILED, said)
    return Absence(Reason.TRAINING_NOT_FINISHED, f"{who} has no result yet; the training is {status.phase}")


def stage_with_result(training: Manifest, uri: str | None) -> str | None:
    """The stage that has made what lies there."""
    status = LLMTrainingStatus.model_validate(training.get("status") or {})
    return next((stage.name for stage in status.stages if stage.result and stage.result.uri == uri), None)
