"""What stages name elsewhere and data preparation has not fetched, because it was named later. Pure.

A stage's pod would find that out too, but with its GPUs taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from llm_operator.api.training import DATA_STAGE, LLMTrainingSpec
from llm_operator.api.training_status import StageStatus
from llm_operator.training.progress import MOST_MODELS
from llm_operator.training.stages import remote_inputs
from llm_trainer.config.remote import shown
from llm_trainer.protocol import FetchedInput

OF_STAGE = re.compile(r"spec\.stages\[(\d+)\]\.")
INSTEAD = (
    "was not fetched, because it was named after the data had been prepared; name what was fetched or a pvc:// URI, or "
    "make a new LLMTraining with spec.resumeFrom: it fetches it, and takes up what is finished"
)


def unfetched_problems(spec: LLMTrainingSpec, known: Sequence[StageStatus]) -> Iterator[str]:
    """Of the stages of a valid spec that have not begun, or have failed; nothing where the status isn't known whole."""
    fetched = told_inputs(known)
    if fetched is None:
        return
    begun = {stage.name for stage in known if stage.state in ("Running", "Succeeded")}
    for each in remote_inputs(spec):
        found, uri = OF_STAGE.match(each.field), shown(each.uri)
        if found and spec.stages[int(found[1])].name not in begun and uri not in fetched and can_be_told(uri):
            yield f"{each.field}: {uri} {INSTEAD}"


def told_inputs(known: Sequence[StageStatus]) -> frozenset[str] | None:
    """The URIs that data preparation has fetched; None if its last word was lost, or told more than a status holds."""
    data = next((stage for stage in known if stage.name == DATA_STAGE and stage.state == "Succeeded"), None)
    if data is None or len(data.inputs) >= MOST_MODELS or not (data.inputs or data.data or data.models):
        return None
    return frozenset(each.uri for each in data.inputs)


def can_be_told(uri: str) -> bool:
    try:
        FetchedInput(uri=uri, revision="", bytes=0)
    except ValidationError:
        return False
    return True
