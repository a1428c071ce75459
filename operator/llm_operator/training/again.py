"""A training that has ended and whose spec has changed since, if only in ``restartToken``. Pure.

One that failed is taken up again: at the stage that failed, with new budgets. One that succeeded runs what was added.
"""

from __future__ import annotations

from llm_operator.api.reasons import Reason
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.training_status import LLMTrainingStatus, StageStatus
from llm_operator.kube.plan import Manifest
from llm_operator.training.known import known_stages, next_number, whose_turn, with_new_budgets
from llm_operator.training.stages import planned_stages
from llm_operator.training.status import Verdict, all_succeeded, summary


def taken_up(
    training: Manifest, asked: LLMTrainingSpec, begun: LLMTrainingSpec, old: LLMTrainingStatus, now: float
) -> LLMTrainingStatus:
    """The status from which the next pass goes on. ``begun`` is the spec with the pods that its stages keep.

    A stage that failed stays so until its next attempt is there: until then it may be corrected again.
    """
    _, stages = known_stages(begun, old)
    index = whose_turn(stages)
    if index is None:
        return summary(training, begun, old, stages, stages[-1], all_succeeded(stages), now)
    stages = [with_new_budgets(stage) if stage.state == "Failed" else stage for stage in stages]
    stage, nodes = stages[index], planned_stages(asked)[index].nodes
    cause = "spec.restartToken is new" if begun.restart_token != old.observed_restart_token else "the spec has changed"
    said = f"goes on with stage {stage.name}, attempt {next_number(stage)}, as {cause}{kept_nodes(stage, nodes)}"
    verdict = Verdict(running=False, reason=Reason.RESTARTING, message=said, taken_up=True)
    return summary(training, begun, old, stages, stage, verdict, now)


def kept_nodes(stage: StageStatus, asked: int) -> str:
    if stage.nodes == asked:
        return ""
    return f"; it keeps {stage.nodes} pods and not {asked}, as the experts of its checkpoint lie with so many processes"
