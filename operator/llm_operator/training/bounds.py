"""The greatest size of a status, whatever the spec, the pods and rank 0 say: etcd refuses large objects. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from llm_operator.api.conditions import with_bounded_messages
from llm_operator.api.text import TEXT_BYTES, cut
from llm_operator.api.training import DATA_STAGE
from llm_operator.api.training_status import (
    AttemptStatus,
    DataStatus,
    LLMTrainingStatus,
    NoticeStatus,
    ProgressStatus,
    PublicationStatus,
    ReadStatus,
    StageStatus,
)

WORD_BYTES = 64  # of a text that is a word
ATTENTION_BYTES = 256
FIGURE_NAME_BYTES = 128
DATA_ENTRIES = 16  # of each list
DATA_SOURCES = 64  # of more none is told: a mixture is checked by all of them


@dataclass(frozen=True)
class Limits:
    """What a stage may have. ``text`` in bytes of UTF-8, each."""

    text: int
    attempts: int
    notices: int
    figures: int
    scores: int
    workers: int
    sources: int  # of each list


CURRENT = Limits(text=TEXT_BYTES, attempts=10, notices=20, figures=64, scores=32, workers=64, sources=16)
OTHER = Limits(text=256, attempts=3, notices=3, figures=6, scores=4, workers=0, sources=2)


def bounded(status: LLMTrainingStatus, other: Limits = OTHER) -> LLMTrainingStatus:
    """The status with no more than may be written; ``other`` is for the stages whose turn it is not.

    What is left out is counted, attempts by their numbers. A bounded status stays as it is.
    """
    stages = [bounded_stage(stage, CURRENT if stage.name == status.stage else other) for stage in status.stages]
    told = [bounded_publication(each) for each in status.publications]
    return status.model_copy(
        update={"stages": stages, "publications": told, "conditions": with_bounded_messages(status.conditions)}
    )


def bounded_publication(told: PublicationStatus) -> PublicationStatus:
    return told.model_copy(update={"message": cut(told.message, TEXT_BYTES) if told.message else None})


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
            "inputs": stage.inputs if stage.name == DATA_STAGE else [],
            "data": bounded_data(stage.data) if stage.data and stage.name == DATA_STAGE else None,
            "notices": [bounded_notice(notice, limits) for notice in notices],
            "notices_left_out": left_out(stage.notices_left_out, len(stage.notices) - len(notices)),
        }
    )


def bounded_attempt(attempt: AttemptStatus, limits: Limits) -> AttemptStatus:
    message = cut(attempt.message, limits.text) if attempt.message else attempt.message
    return attempt.model_copy(update={"message": message})


def bounded_data(data: DataStatus) -> DataStatus:
    """Those with most go first. Labels as long as a source's may be are kept whole."""
    tokens, dropped = data.tokens[:DATA_ENTRIES], data.dropped[:DATA_ENTRIES]
    more = len(data.tokens) + len(data.dropped) - len(tokens) - len(dropped)
    return data.model_copy(
        update={
            "tokens": [
                each.model_copy(
                    update={"domain": cut(each.domain, FIGURE_NAME_BYTES), "language": cut(each.language, WORD_BYTES)}
                )
                for each in tokens
            ],
            "dropped": [each.model_copy(update={"reason": cut(each.reason, FIGURE_NAME_BYTES)}) for each in dropped],
            "left_out": left_out(data.left_out, more),
            "sources": data.sources if len(data.sources) <= DATA_SOURCES and all(map(is_name, data.sources)) else {},
        }
    )


def is_name(text: str) -> bool:
    return len(text.encode()) <= WORD_BYTES


def bounded_notice(notice: NoticeStatus, limits: Limits) -> NoticeStatus:
    return notice.model_copy(update={"message": cut(notice.message, limits.text)})


def bounded_progress(progress: ProgressStatus, limits: Limits) -> ProgressStatus:
    """Figures of the whole go before those of a part, such as bitsPerByte/SOURCE."""
    named = [name for name in progress.evaluation if name == cut(name, FIGURE_NAME_BYTES)]  # to cut a name changes it
    scores = [score for score in progress.scores if score.name == cut(score.name, FIGURE_NAME_BYTES)][: limits.scores]
    kept = sorted(named, key=lambda name: ("/" in name, name))[: limits.figures]
    read = [each[: limits.sources] for each in (progress.sources, progress.domains)]
    more = len(progress.sources) + len(progress.domains) - len(read[0]) - len(read[1])
    return progress.model_copy(
        update={
            "phase": cut(progress.phase, WORD_BYTES),
            "attention": cut(progress.attention, ATTENTION_BYTES) if progress.attention else None,
            "device": cut(progress.device, WORD_BYTES) if progress.device else None,
            "evaluation": {name: progress.evaluation[name] for name in kept},
            "scores": scores,
            "scores_left_out": left_out(progress.scores_left_out, len(progress.scores) - len(scores)),
            "evaluation_left_out": left_out(progress.evaluation_left_out, len(progress.evaluation) - len(kept)),
            "sources": [bounded_read(each) for each in read[0]],
            "domains": [bounded_read(each) for each in read[1]],
            "sources_left_out": left_out(progress.sources_left_out, more),
        }
    )


def bounded_read(read: ReadStatus) -> ReadStatus:
    update = {"domain": cut(read.domain, WORD_BYTES), "language": cut(read.language, WORD_BYTES)}
    return read.model_copy(update={**update, "source": cut(read.source, WORD_BYTES) if read.source else None})


def left_out(before: int | None, more: int) -> int | None:
    return (before or 0) + more or None
