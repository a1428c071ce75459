"""From what rank 0 tells to what the status shows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llm_operator.api.conditions import seconds_of, timestamp
from llm_operator.api.training_status import (
    Checkpoint,
    DataStatus,
    InputStatus,
    ModelSizeStatus,
    NoticeStatus,
    ProgressStatus,
    ReadStatus,
    Result,
    ScoreStatus,
    StageStatus,
    WorkerStatus,
)
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import container_state
from llm_operator.training.bounds import CURRENT, bounded_data, bounded_notice
from llm_operator.training.gang import pod_index
from llm_operator.training.manifests import CONTAINER
from llm_trainer.protocol import DataFigures, Notice, Progress, ReadTokens, Score

MOST_MODELS = 12
LARGEST = 2.0**63  # a status holds smaller whole numbers


def with_progress(stage: StageStatus, told: Progress, interval: float, *, final: bool = False) -> StageStatus:
    """The stage with what is new. Figures alone are news only every ``interval`` seconds: a write costs more."""
    update: dict[str, object] = {}
    if told.result and (stage.result is None or told.result.digest != stage.result.digest):
        update["result"] = Result.model_validate(told.result.model_dump())
    if told.data and (data := data_status(told.data)) != stage.data:
        update["data"] = data
    if notices := new_notices(stage.notices, told.notices):
        update["notices"] = [*stage.notices, *notices]
    models = [ModelSizeStatus.model_validate(model.model_dump()) for model in told.models[:MOST_MODELS]]
    if models and models != stage.models:
        update["models"] = models
    inputs = [InputStatus.model_validate(each.model_dump()) for each in told.inputs[:MOST_MODELS]]
    if inputs and inputs != stage.inputs:
        update["inputs"] = inputs
    known = stage.progress
    shown = seconds_of(known.last_heartbeat_time) if known and known.last_heartbeat_time else 0.0
    # A heartbeat is the pod's word, by another node's clock: one from the future must not silence those that follow.
    if final or update or abs(told.heartbeat - shown) >= interval:
        update["progress"] = progress_status(told, known)
        if told.checkpoint:
            update["checkpoint"] = Checkpoint(
                step=told.checkpoint.step,
                uri=told.checkpoint.uri,
                time=timestamp(told.checkpoint.time),
                digest=told.checkpoint.digest,
            )
    return stage.model_copy(update=update)


def progress_status(told: Progress, known: ProgressStatus | None) -> ProgressStatus:
    """Held-out figures, and what was read, stay until there are newer ones: a last word may be too short for them."""
    evaluation = {name: decimal(value) for name, value in told.evaluation.items()}
    left_out = known.evaluation_left_out if known and not evaluation else None
    scores = [score_status(score) for score in told.scores]
    before = known if known and not told.sources else None  # whose figures stay
    return ProgressStatus(
        phase=told.phase,
        step=told.step,
        steps=told.total_steps,
        percent=min(100 * told.step // told.total_steps, 100) if told.total_steps else 0,
        tokens=told.tokens,
        loss=None if told.loss is None else decimal(told.loss),
        tokens_per_second=whole(told.tokens_per_second),
        eta_seconds=whole(told.eta_seconds),
        device=told.device or (known.device if known else None),
        mfu=None if told.mfu is None else decimal(told.mfu),
        fetched_bytes=told.fetched_bytes or None,
        fetch_bytes=told.fetch_bytes or None,
        units=told.units if told.total_units else None,
        total_units=told.total_units or None,
        bytes_per_second=whole(told.bytes_per_second),
        evaluation=evaluation or (known.evaluation if known else {}),
        evaluation_left_out=left_out,
        scores=scores or (known.scores if known else []),
        scores_left_out=known.scores_left_out if known and not scores else None,
        sources=before.sources if before else read_status(told.sources),
        domains=before.domains if before else read_status(told.domains),
        sources_left_out=before.sources_left_out if before else None,
        world_size=told.world_size,
        attention=told.attention or (known.attention if known else None),
        last_heartbeat_time=timestamp(told.heartbeat),
    )


def score_status(told: Score) -> ScoreStatus:
    return ScoreStatus(
        name=told.name,
        value=decimal(told.value),
        stderr=None if told.stderr is None else decimal(told.stderr),
        samples=told.samples,
        few_shot=told.few_shot,
    )


def read_status(told: Sequence[ReadTokens]) -> list[ReadStatus]:
    return [
        ReadStatus(
            source=each.source,
            domain=each.domain,
            language=each.language,
            tokens=each.tokens,
            share=decimal(each.share),
            asked=decimal(each.asked),
            epochs=None if each.epochs is None else decimal(each.epochs),
        )
        for each in told
    ]


def data_status(told: DataFigures) -> DataStatus:
    """As it would be written."""
    return bounded_data(DataStatus.model_validate(told.model_dump()))


def decimal(figure: float) -> str:
    """Short whatever the figure is: of a training that diverges, anything."""
    return f"{figure:.4f}" if abs(figure) < 1e12 else f"{figure:.4e}"


def whole(figure: float | None) -> int | None:
    """None if it is no number that a status can hold."""
    return round(figure) if figure is not None and abs(figure) < LARGEST else None


def new_notices(known: Sequence[NoticeStatus], told: Sequence[Notice]) -> list[NoticeStatus]:
    """As they would be written. Of more than the status may hold the older ones are no news, else they came back."""
    newest = told[-CURRENT.notices :]
    shown = [bounded_notice(NoticeStatus(reason=n.reason, message=n.message), CURRENT) for n in newest]
    return [notice for notice in shown if notice not in known]


def workers(pods: Iterable[Manifest], processes: int) -> list[WorkerStatus]:
    """Which pod runs where; its ranks follow from its completion index and the processes per pod."""
    found = [
        WorkerStatus(rank=index * processes, processes=processes, pod=pod["metadata"]["name"], node=node)
        for pod in pods
        if (index := pod_index(pod)) is not None and (node := (pod.get("spec") or {}).get("nodeName"))
    ]
    return sorted(found, key=lambda worker: worker.rank)


def silence(pod: Manifest, stage: StageStatus, why: str) -> str:
    """That rank 0 can't be asked. The time follows from the status: a restart of the operator doesn't change it."""
    started = (container_state(pod, CONTAINER, "running") or {}).get("startedAt") or stage.attempts[-1].start_time
    heard = (stage.progress.last_heartbeat_time if stage.progress else None) or started
    since = max(started, heard, key=seconds_of)
    who = f"rank 0 (pod {pod['metadata']['name']}, {(pod.get('status') or {}).get('podIP')})"
    return f"{who} can't be asked for its progress since {since}: {why}"
