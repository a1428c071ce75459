"""Data preparation: checks every dataset of the training, then makes the tokenizer and the shards.

The first process does all; the others, of any number of pods, help it with corpus and rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from llm_trainer.checkpoint.fence import Fence, writer_of
from llm_trainer.checkpoint.record import read_record
from llm_trainer.config import DatasetCheck, PrepareData, StageConfig
from llm_trainer.data.files import Streams
from llm_trainer.data.manifest import TOKENIZER, DataManifest, read_manifest
from llm_trainer.data.progress import Speed, Step
from llm_trainer.data.rows import shares_of
from llm_trainer.data.tokenized import apart
from llm_trainer.data.units import find_sources
from llm_trainer.protocol import ModelSize, Result
from llm_trainer.runtime.errors import DataError, PreemptedError
from llm_trainer.runtime.history import HISTORY, History
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.signals import StopSignal
from llm_trainer.runtime.startup import importing
from llm_trainer.stages.data_summary import data_figures, linked_twice, notices, percent, summary
from llm_trainer.stages.mixtures import planned
from llm_trainer.stages.prepare_checks import checked_by_files, checked_models, unfinished
from llm_trainer.storage.streams import open_streams


def run(config: StageConfig, board: Board) -> str:
    """The message of the end. Raises DataError and ConfigurationError for what a user has to change."""
    settings = config.prepare_data
    assert settings  # noqa: S101 -- the caller chose this stage by it
    stop = StopSignal()
    stop.listen()

    def leave_if_asked() -> None:
        if stop.asked:
            raise PreemptedError("asked to leave while preparing data; the next attempt goes on with what is made")

    if (rank := int(os.environ.get("RANK", "0"))) > 0:
        return help_to_prepare(config, settings, rank, leave_if_asked)
    wanted = {
        "datasets": unfinished(config, settings.datasets),
        "models": unfinished(config, settings.models),
        "tasks": unfinished(config, settings.tasks),
    }
    return prepare_and_check(config, settings.model_copy(update=wanted), board, leave_if_asked)


def prepare_and_check(
    config: StageConfig, settings: PrepareData, board: Board, leave_if_asked: Callable[[], None]
) -> str:
    """Of the first process."""

    def alive() -> None:
        leave_if_asked()
        board.update(phase="Preparing")

    rows = checked_by_files(config, settings, leave_if_asked)
    with importing():
        from llm_trainer.data.tokenizer import load_tokenizer
        from llm_trainer.stages.dataset_rows import checked_rows
    before, streams = made_before(config, board), open_streams(config)
    twice = [] if before else linked_twice(settings, config.volumes_root, streams)
    manifest = before or make_data(config, settings, board, leave_if_asked, streams)
    tokenizer = load_tokenizer(Path(config.data_folder) / TOKENIZER, "the training's tokenizer")
    said, found, sizes = checked_models(config, settings, tokenizer, leave_if_asked)
    rows += said
    for mixture in planned(settings.mixtures, manifest):
        rows, found = [*rows, str(mixture)], [*found, *mixture.notices()]
    for notice in [*found, *twice, *notices(settings, manifest)]:
        board.notice(notice.reason, notice.message)
    for notice in checked_rows(config, settings.datasets, tokenizer, alive):
        board.notice(notice.reason, notice.message)
    show_end(config, board, manifest, sizes)
    return "; ".join([summary(manifest), *rows])


def make_data(
    config: StageConfig, settings: PrepareData, board: Board, leave_if_asked: Callable[[], None], streams: Streams
) -> DataManifest:
    """Tokenizer and shards, with whoever helps."""
    with importing():
        from llm_trainer.data.prepare import Member, prepare
    speed = Speed()

    def report(step: Step) -> None:
        leave_if_asked()
        per_second, left = speed.of(step, time.monotonic())
        board.update(
            phase="Preparing", step=percent(step), total_steps=100, tokens=step.tokens, units=step.units,
            total_units=step.total_units, bytes_per_second=per_second, eta_seconds=left,
        )  # fmt: skip

    return prepare(
        settings,
        Path(config.data_folder),
        config.volumes_root,
        writer_of(config),
        report,
        Fence(config).check,
        Member(processes=world_size()),
        streams,
    )


def show_end(config: StageConfig, board: Board, manifest: DataManifest, sizes: list[ModelSize]) -> None:
    result = Result(uri=f"{config.run_uri}/data", digest=manifest.digest, kind="data")
    figures, tokens = data_figures(manifest), manifest.tokens("train")
    board.metrics.show_data(figures)
    History(Path(config.stage_folder) / HISTORY, config.attempt).spent(0, board.clock)
    board.update(units=0, total_units=0, bytes_per_second=None, eta_seconds=None)  # of the passes
    board.update(phase="Done", step=100, total_steps=100, tokens=tokens, result=result, data=figures, models=sizes)


class _NothingToDoError(Exception):
    """The data is there."""


def help_to_prepare(config: StageConfig, settings: PrepareData, rank: int, leave_if_asked: Callable[[], None]) -> str:
    """Of a process that isn't the first: work on the corpus and on rows, where there is enough for it."""

    def there() -> bool:
        record = read_record(Path(config.stage_folder))
        return record is not None and record.end is not None

    if there():  # of another training, perhaps, whose sources may be gone
        return "the data is there"
    datasets, fence = unfinished(config, settings.datasets), Fence(config)
    streams = open_streams(config)
    if most_pieces(settings, datasets, config.volumes_root, streams) <= rank:
        return "there is no work for this process"
    with importing():
        from llm_trainer.data.prepare import Member, prepare
        from llm_trainer.data.tokenizer import load_tokenizer
        from llm_trainer.stages.dataset_rows import makings, sharing_of

    def check() -> None:
        fence.check()
        if there():
            raise _NothingToDoError

    name = f"{os.environ['GROUP_RANK']}.{os.environ['LOCAL_RANK']}"
    member = Member(name, first=False, processes=world_size(), patience_seconds=config.patience_seconds)
    try:
        prepare(
            settings, Path(config.data_folder), config.volumes_root, writer_of(config), lambda _: leave_if_asked(),
            check, member, streams,
        )  # fmt: skip
        tokenizer = load_tokenizer(Path(config.data_folder) / TOKENIZER, "the training's tokenizer")
        sharing = sharing_of(config, leave_if_asked, check, name)
        for making in makings(config, datasets, tokenizer, sharing).values():
            making.help()
    except _NothingToDoError:
        return "the data is there"
    return "helped to prepare the data"


def most_pieces(settings: PrepareData, datasets: list[DatasetCheck], volumes_root: str, streams: Streams) -> int:
    """How many processes could work at the same time."""
    from llm_trainer.data.units import units_of

    sources = find_sources(settings.data, volumes_root, streams) if settings.data else []
    corpus = units_of(settings.data, apart(sources)[0]) if settings.data else []
    return max(len(corpus), *(len(shares_of(each, volumes_root)) for each in datasets), 0)


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def made_before(config: StageConfig, board: Board) -> DataManifest | None:
    """The data that the run folder holds, if it is known to be what this configuration makes (`takeover.begin`).

    The sources need not be there any more. Raises DataError if a file is not as it was written.
    """
    from llm_trainer.data.verify import alteration

    record, manifest = read_record(Path(config.stage_folder)), read_manifest(config.data_folder)
    if record is None or record.end is None or record.end.result is None:
        return None
    altered = alteration(Path(config.data_folder), manifest) if manifest else "manifest.json is missing"
    if manifest and manifest.digest != record.end.result.digest:
        altered = altered or f"its digest is {manifest.digest} and was {record.end.result.digest}"
    if manifest is None or altered:
        raise DataError(
            f"the prepared data {config.run_uri}/data can't be taken over: {altered}; restore it, or delete both "
            f"{config.run_uri}/data and {config.run_uri}/stages/{config.stage}: it is then prepared from its sources"
        )
    board.notice("TakenOver", f"the data was prepared before by {record.owner}; its files are as they were written")
    return manifest
