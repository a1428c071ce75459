"""The greatest size of a status, whatever its trainings and pods say. Pure."""

from __future__ import annotations

from llm_operator.api.conditions import with_bounded_messages
from llm_operator.api.serving import LLMServingStatus
from llm_operator.api.text import cut

ADAPTER_BYTES = 512  # of the message of each adapter and input, of which there may be 32


def bounded(status: LLMServingStatus) -> LLMServingStatus:
    """The status with no more than may be written. A bounded status stays as it is."""
    adapters = [
        adapter.model_copy(update={"message": cut(adapter.message, ADAPTER_BYTES)}) for adapter in status.adapters
    ]
    inputs = [one.model_copy(update={"message": cut(one.message, ADAPTER_BYTES)}) for one in status.inputs]
    return status.model_copy(
        update={"adapters": adapters, "inputs": inputs, "conditions": with_bounded_messages(status.conditions)}
    )
