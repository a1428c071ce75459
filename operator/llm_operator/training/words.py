"""What is believed of a pod's words: a result only where the operator would have it written. Pure.

A serving mounts the claim of a result's URI and loads what lies there, so a pod must not choose it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from llm_operator.api.reasons import Reason
from llm_operator.api.training import DATA_STAGE
from llm_trainer.config import claim_of, local_path
from llm_trainer.protocol import Notice, Progress

_STEP = "step-[0-9]{8,12}"
_NAME = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"


@dataclass(frozen=True)
class Places:
    """Of one stage. ``claims``: those that its pods mount; None where they are not known."""

    run_uri: str
    stage: str
    claims: Collection[str] | None

    def may_hold_result(self, uri: str) -> bool:
        if self.stage == DATA_STAGE:
            return uri == f"{self.run_uri}/data"
        return self._is(uri, f"stages/{re.escape(self.stage)}/results/{_STEP}")

    def may_hold_checkpoint(self, uri: str) -> bool:
        return self._is(uri, f"stages/{re.escape(self.stage)}/checkpoints/{_STEP}")

    def may_hold_base(self, uri: str) -> bool:
        """A result of this training's, or a model that its pods can read, such as the one that it starts from."""
        if self._is(uri, f"stages/{_NAME}/results/{_STEP}"):
            return True
        try:
            local_path(uri)
        except ValueError:
            return False
        return self.claims is None or claim_of(uri) in self.claims

    def _is(self, uri: str, below: str) -> bool:
        return re.fullmatch(f"{re.escape(self.run_uri)}/{below}", uri) is not None


def believed(told: Progress, places: Places) -> Progress:
    """What rank 0 told, without what can't be so; a notice says of each what it was."""
    problems = list(_problems(told, places))
    if not problems:
        return told
    said = [f"rank 0 told {what}; it is not believed" for _, what in problems]
    notices = [Notice(reason=Reason.WORD_REFUSED, message=text) for text in said]
    refused: dict[str, object] = {field: None for field, _ in problems}
    return told.model_copy(update={**refused, "notices": [*told.notices, *notices]})


def _problems(told: Progress, places: Places) -> Iterator[tuple[str, str]]:
    """Fields of Progress that are not taken, and why."""
    result, checkpoint = told.result, told.checkpoint
    if result and not places.may_hold_result(result.uri):
        yield "result", f"result.uri {result.uri!r}, where this stage writes no result (spec.storage, {places.run_uri})"
    elif result and result.base is not None and not places.may_hold_base(result.base):
        yield "result", f"result.base {result.base!r}, a place that no field of the spec names"
    if checkpoint and not places.may_hold_checkpoint(checkpoint.uri):
        yield "checkpoint", f"checkpoint.uri {checkpoint.uri!r}, where this stage writes none ({places.run_uri})"
