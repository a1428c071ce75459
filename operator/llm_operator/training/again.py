"""A training that has ended and whose spec has changed since, if only in ``restartToken``. Pure.

One that failed is taken up again: at the stage that failed, with new budgets. One that succeeded runs what was added.
"""

from __future__ import annotations

from llm_operator.api.reasons import Reason
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.training_status import LLMTrainingStatus, StageStatus
from llm_operator.kube.plan import Manifest
from llm_operator.training.known import known_stages, next_number, unfinished, with_new_budgets
from llm_operator.training.stages import PlannedStage, planned_stages
from llm_operator.training.status import Verdict, all_succeeded, summary


def taken_up(training: Manifest, spec: LLMTrainingSpec, old: LLMTrainingStatus, now: float) -> LLMTrainingStatus:
    """The status from which the next pass goes on."""
    _, stages = known_stages(spec, old)
    index = unfinished(stages)
    if index is None:
        return summary(training, spec, old, stages, stages[-1], all_succeeded(stages), now)
    wanted = planned_stages(spec)
    stages = [
        once_more(stage, plan) if stage.state == "Failed" else stage for stage, plan in zip(stages, wanted, strict=True)
    ]
    stage = stages[index]
    cause = "spec.restartToken is new" if spec.restart_token != old.observed_restart_token else "the spec has changed"
    said = (
        f"goes on with stage {stage.name}, attempt {next_number(stage)}, as {cause}{kept_nodes(stage, wanted[index])}"
    )
    verdict = Verdict(running=False, reason=Reason.RESTARTING, message=said, taken_up=True)
    return summary(training, spec, old, stages, stage, verdict, now)


def once_more(stage: StageStatus, wanted: PlannedStage) -> StageStatus:
    """The numbers of its attempts go on. Without a checkpoint there is nothing that holds it to its number of pods."""
    nodes = stage.nodes if stage.checkpoint else wanted.nodes
    return with_new_budgets(stage).model_copy(update={"state": "Pending", "end_time": None, "nodes": nodes})


def kept_nodes(stage: StageStatus, wanted: PlannedStage) -> str:
    if stage.nodes == wanted.nodes:
        return ""
    return f"; it keeps {stage.nodes} pods and not {wanted.nodes}, as its checkpoint is of so many processes"
