"""The greatest size of a status, whatever the spec, the pods and rank 0 say: etcd refuses large objects. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from llm_operator.api.conditions import with_bounded_messages
from llm_operator.api.text import TEXT_BYTES, cut
from llm_operator.api.training_status import (
    AttemptStatus,
    LLMTrainingStatus,
    NoticeStatus,
    ProgressStatus,
    StageStatus,
)

WORD_BYTES = 64  # of a text that is a word
ATTENTION_BYTES = 256
FIGURE_NAME_BYTES = 128


@dataclass(frozen=True)
class Limits:
    """What a stage may have. ``text`` in bytes of UTF-8, each."""

    text: int
    attempts: int
    notices: int
    figures: int
    workers: int


CURRENT = Limits(text=TEXT_BYTES, attempts=10, notices=20, figures=64, workers=64)
OTHER = Limits(text=256, attempts=3, notices=3, figures=12, workers=0)


def bounded(status: LLMTrainingStatus, other: Limits = OTHER) -> LLMTrainingStatus:
    """The status with no more than may be written; ``other`` is for the stages whose turn it is not.

    What is left out is counted, attempts by their numbers. A bounded status stays as it is.
    """
    stages = [bounded_stage(stage, CURRENT if stage.name == status.stage else other) for stage in status.stages]
    return status.model_copy(update={"stages": stages, "conditions": with_bounded_messages(status.conditions)})


def bounded_stage(stage: StageStatus, limits: Limits) -> StageStatus:
    under_way = any(attempt.end_time is None for attempt in stage.attempts)
    workers = stage.workers[: limits.workers] if under_way else []
    further = left_out(stage.workers_left_out, len(stage.workers) - len(workers))
    notices = stage.notices[-limits.notices :]
    return stage.model_copy(
        update={
            "attempts": [bounded_attempt(attempt, limits) for attempt in stage.attempts[-limits.attempts :]],
            "workers": workers,
            "workers_left_out": further if workers else None,
            "progress": bounded_progress(stage.progress, limits) if stage.progress else None,
            "notices": [bounded_notice(notice, limits) for notice in notices],
            "notices_left_out": left_out(stage.notices_left_out, len(stage.notices) - len(notices)),
        }
    )


def bounded_attempt(attempt: AttemptStatus, limits: Limits) -> AttemptStatus:
    message = cut(attempt.message, limits.text) if attempt.message else attempt.message
    return attempt.model_copy(update={"message": message})


def bounded_notice(notice: NoticeStatus, limits: Limits) -> NoticeStatus:
    return notice.model_copy(update={"message": cut(notice.message, limits.text)})


def bounded_progress(progress: ProgressStatus, limits: Limits) -> ProgressStatus:
    """Figures of the whole go before those of a part, such as bitsPerByte/SOURCE."""
    named = [name for name in progress.evaluation if name == cut(name, FIGURE_NAME_BYTES)]  # to cut a name changes it
    kept = sorted(named, key=lambda name: ("/" in name, name))[: limits.figures]
    return progress.model_copy(
        update={
            "phase": cut(progress.phase, WORD_BYTES),
            "attention": cut(progress.attention, ATTENTION_BYTES) if progress.attention else None,
            "evaluation": {name: progress.evaluation[name] for name in kept},
            "evaluation_left_out": left_out(progress.evaluation_left_out, len(progress.evaluation) - len(kept)),
        }
    )


def left_out(before: int | None, more: int) -> int | None:
    return (before or 0) + more or None
