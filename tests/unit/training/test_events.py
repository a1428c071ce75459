"""Which events are warnings: what somebody may have to do something about."""

from __future__ import annotations

import pytest

from llm_operator.api.reasons import Reason
from llm_operator.api.training_status import LLMTrainingStatus, NoticeStatus, StageStatus
from llm_operator.training.events import events_between


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Reason.LAYERS_COMPILED, "Normal"),
        (Reason.TUNED, "Normal"),
        (Reason.TAKEN_OVER, "Normal"),
        (Reason.CHECKPOINT_SET_ASIDE, "Warning"),
        (Reason.ROLL_BACK, "Warning"),
    ],
)
def test_a_notice(reason: Reason, kind: str) -> None:
    stage = StageStatus(name="base", kind="pretrain", state="Running")
    told = stage.model_copy(update={"notices": [NoticeStatus(reason=reason, message="what was seen")]})
    before, after = (LLMTrainingStatus(stages=[one]) for one in (stage, told))
    (event,) = events_between(before, after)
    assert (event.type, event.reason, event.message) == (kind, reason, "stage base: what was seen")
    assert not list(events_between(after, after))
