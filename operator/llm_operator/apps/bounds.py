"""The greatest size of a status, whatever its serving and pods say. Pure."""

from __future__ import annotations

from llm_app.config import METRICS
from llm_operator.api.app import LLMAppStatus
from llm_operator.api.common import Status
from llm_operator.api.conditions import with_bounded_messages
from llm_operator.api.knowledge import MOST_KNOWLEDGE
from llm_operator.api.text import cut

PART_BYTES = 512  # of each text of a knowledge base, of the evaluation and of the model


def bounded(status: LLMAppStatus) -> LLMAppStatus:
    """The status with no more than may be written. A bounded status stays as it is.

    Of a spec that can't work it keeps what the status had, which others may have written.
    """
    model = status.model and status.model.model_copy(update=texts(status.model))
    asked = status.evaluation
    if asked:
        asked = asked.model_copy(update={**texts(asked), "scores": asked.scores[: len(METRICS)]})
    return status.model_copy(
        update={
            "knowledge": [one.model_copy(update=texts(one)) for one in status.knowledge[:MOST_KNOWLEDGE]],
            "evaluation": asked,
            "model": model,
            "conditions": with_bounded_messages(status.conditions),
        }
    )


def texts(part: Status) -> dict[str, str]:
    """Of one knowledge base, or of the model: each as long as may be written."""
    return {name: cut(value, PART_BYTES) for name, value in part if isinstance(value, str)}
