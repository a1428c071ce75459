"""Data preparation: checks every dataset of the training, then makes the tokenizer and the shards.

The first process does all; the others, of any number of pods, help it with corpus and rows. Missing files and bad rows
are told before transformers is imported, and torch models only for an architecture.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llm_trainer.checkpoint.fence import Fence, writer_of
from llm_trainer.checkpoint.record import read_record
from llm_trainer.config import (
    Architecture,
    DatasetCheck,
    FunctionCheck,
    ModelCheck,
    PrepareData,
    StageConfig,
    TaskCheck,
)
from llm_trainer.data.files import Streams, find_files
from llm_trainer.data.manifest import TOKENIZER, DataManifest, read_manifest
from llm_trainer.data.progress import Speed, Step
from llm_trainer.data.rows import KEPT_KINDS, SUFFIXES, read_rows, refuse_warmup, shares_of
from llm_trainer.data.sources import TOKENS
from llm_trainer.data.tokenized import apart
from llm_trainer.data.units import find_sources
from llm_trainer.protocol import DataFigures, DropCount, ModelSize, Notice, Result, TokenCount
from llm_trainer.rl.reward_functions import load_reward
from llm_trainer.runtime.errors import DataError, PreemptedError
from llm_trainer.runtime.functions import load_function
from llm_trainer.runtime.history import HISTORY, History
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.signals import StopSignal
from llm_trainer.runtime.startup import importing
from llm_trainer.stages.mixtures import planned
from llm_trainer.stages.named_models import check_files, check_weights, told_size
from llm_trainer.storage.request import read_inputs
from llm_trainer.storage.streams import open_streams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Check = TypeVar("Check", DatasetCheck, ModelCheck, TaskCheck)


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

    speed = Speed()

    def report(step: Step) -> None:
        leave_if_asked()
        per_second, left = speed.of(step, time.monotonic())
        board.update(
            phase="Preparing", step=percent(step), total_steps=100, tokens=step.tokens, units=step.units,
            total_units=step.total_units, bytes_per_second=per_second, eta_seconds=left,
        )  # fmt: skip

    def alive() -> None:
        leave_if_asked()
        board.update(phase="Preparing")

    datasets, models = unfinished(config, settings.datasets), unfinished(config, settings.models)
    tasks = unfinished(config, settings.tasks)
    settings = settings.model_copy(update={"datasets": datasets, "models": models, "tasks": tasks})
    rows = checked_by_files(config, settings, leave_if_asked)
    with importing():
        from llm_trainer.data.prepare import Member, prepare
        from llm_trainer.data.tokenizer import load_tokenizer
        from llm_trainer.stages.dataset_rows import checked_rows
    before, streams = made_before(config, board), open_streams(config)
    twice = [] if before else linked_twice(settings, config.volumes_root, streams)
    manifest = before or prepare(
        settings,
        Path(config.data_folder),
        config.volumes_root,
        writer_of(config),
        report,
        Fence(config).check,
        Member(processes=world_size()),
        streams,
    )
    tokenizer = load_tokenizer(Path(config.data_folder) / TOKENIZER, "the training's tokenizer")
    said, found, sizes = checked_models(config, settings, tokenizer, leave_if_asked)
    rows += said
    for mixture in planned(settings.mixtures, manifest):
        rows, found = [*rows, str(mixture)], [*found, *mixture.notices()]
    for notice in [*found, *twice, *notices(settings, manifest)]:
        board.notice(notice.reason, notice.message)
    for notice in checked_rows(config, settings.datasets, tokenizer, alive):
        board.notice(notice.reason, notice.message)
    result = Result(uri=f"{config.run_uri}/data", digest=manifest.digest, kind="data")
    figures = data_figures(manifest)
    board.metrics.show_data(figures)
    tokens = manifest.tokens("train")
    History(Path(config.stage_folder) / HISTORY, config.attempt).spent(0, board.clock)
    board.update(units=0, total_units=0, bytes_per_second=None, eta_seconds=None)  # of the passes
    board.update(phase="Done", step=100, total_steps=100, tokens=tokens, result=result, data=figures, models=sizes)
    return "; ".join([summary(manifest), *rows])


def checked_by_files(config: StageConfig, settings: PrepareData, leave_if_asked: Callable[[], None]) -> list[str]:
    """What a look at files, rows and functions tells, before any library of models is imported: a text of each."""
    for model in settings.models:
        check_files(model, config.volumes_root, leave_if_asked)
    rows = [f"{check_dataset(check, config.volumes_root):,} rows in {check.uri}" for check in settings.datasets]
    for check in settings.functions:
        check_function(check)
    rows += checked_tasks(settings.tasks, config.volumes_root, leave_if_asked)
    if settings.architecture and settings.architecture.function:
        load_function(settings.architecture.function, "spec.model.architecture.function")
    return rows


def checked_models(
    config: StageConfig,
    settings: PrepareData,
    tokenizer: PreTrainedTokenizerBase,
    leave_if_asked: Callable[[], None],
) -> tuple[list[str], list[Notice], list[ModelSize]]:
    """Of the model from scratch and those that a user names: a text of each, what may surprise, sizes by URI."""
    rows: list[str] = []
    found: list[Notice] = []
    sizes: dict[str, ModelSize] = {}
    written = {each.place: each.uri for each in read_inputs(Path(config.run_folder))}  # as the user knows them
    if settings.architecture:
        said, sizes[""] = check_from_scratch(settings, settings.architecture, tokenizer)
        rows.append(said)
    for model in settings.models:
        leave_if_asked()
        said, told, size = check_weights(model, tokenizer, config.volumes_root)
        rows, found = [*rows, said], [*found, *told]
        if size:
            sizes[model.uri] = size.model_copy(update={"uri": written.get(model.uri, model.uri)})
    return rows, found, list(sizes.values())


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
    return max(len(corpus), *(len(shares_of(each, volumes_root)) for each in datasets if each.kind in KEPT_KINDS), 0)


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_from_scratch(
    settings: PrepareData, architecture: Architecture, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, ModelSize]:
    """In a few words what the model is, and its size. Raises ConfigurationError for one that its stages can't use."""
    with importing():
        from llm_trainer.models.build import check_architecture
        from llm_trainer.models.limits import check_length
        from llm_trainer.models.size import size_of
    model = check_architecture(architecture, tokenizer)
    if settings.length_field:
        check_length(model, settings.length, settings.length_field)
    size = size_of(model)
    return f"a {architecture.family} of {size} from scratch", told_size(size)


def check_function(check: FunctionCheck) -> None:
    """Raises ConfigurationError for a function of the user's that a stage could not use."""
    if check.use == "reward":
        load_reward(check.function, check.field)
    elif check.use == "loss":
        with importing():
            from llm_trainer.models.loss_function import loss_function
        loss_function(check.function, check.field)
    elif check.optimizer:
        with importing():
            from llm_trainer.models.optimizer_function import optimizer_maker
        optimizer_maker(check.function, check.optimizer, check.field, flat=check.flat)


def checked_tasks(checks: list[TaskCheck], volumes_root: str, leave_if_asked: Callable[[], None]) -> list[str]:
    """In a few words each. Raises DataError for the first task that its stage could not run."""
    from llm_trainer.data.task_files import read_task

    for check in checks:
        read_task(check, check.field, volumes_root)  # what is wrong in a file is told before anything is imported
    said = []
    for check in checks:
        leave_if_asked()
        with importing():
            from llm_trainer.stages.tasks import check_task
        said.append(check_task(check, volumes_root))
    return said


def unfinished(config: StageConfig, checks: list[Check]) -> list[Check]:
    """Without those of stages that are not run again: of another training's run folder the rows may be gone."""
    stages = Path(config.run_folder) / "stages"
    records = {check.stage: read_record(stages / check.stage) for check in checks if check.stage}
    return [check for check in checks if not ((record := records.get(check.stage)) and record.end)]


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


def linked_twice(settings: PrepareData, volumes_root: str, streams: Streams) -> list[Notice]:
    """Of files that a URI's glob finds by several names, and that are read once."""
    found = [files for _, files in find_sources(settings.data, volumes_root, streams)] if settings.data else []
    found += [find_files(check.uri, check.field, volumes_root, SUFFIXES) for check in settings.datasets]
    return [
        Notice(
            reason="LinkedTwice",
            message=f"{files.field}: {len(files.again)} names that match {files.uri} are links to files that match it "
            f"too, such as {files.again[0]}; each file is read once",
        )
        for files in found
        if files.again
    ]


def check_dataset(check: DatasetCheck, volumes_root: str) -> int:
    """How many rows a dataset of a later stage has. Raises DataError for the first that its stage could not use."""
    count = sum(1 for _ in read_rows(check, volumes_root))
    refuse_warmup(check, count)
    return count


def percent(step: Step) -> int:
    """Each phase has the same part of it; a loaded tokenizer starts at that of the tokens."""
    share = step.done / max(1, step.total)
    return int(100 * (step.phases.index(step.phase) + share) / len(step.phases))


def summary(manifest: DataManifest) -> str:
    """One line of counts, such as `14.6 MB, 4,378 documents, 3,001,284 tokens, 8,192 tokens of vocabulary`."""
    parts = [f"vocabulary of {manifest.vocabulary_size:,} tokens"]
    if manifest.sources:
        held_out = sum(shard.documents for shard in manifest.shards if shard.split == "validation")
        parts = [
            f"{sum(source.bytes for source in manifest.sources) / 1e6:.1f} MB",
            f"{sum(source.documents for source in manifest.sources):,} documents ({held_out:,} held out)",
            f"{manifest.tokens('train'):,} tokens to train on",
            *parts,
        ]
    dropped = {
        "duplicates": sum(source.duplicates for source in manifest.sources),
        "not UTF-8": sum(source.invalid for source in manifest.sources),
        "empty": sum(source.empty for source in manifest.sources),
        "by quality": sum(source.filtered for source in manifest.sources),
    }
    parts += [f"{count:,} {name} dropped" for name, count in dropped.items() if count]
    return ", ".join(parts)


def data_figures(manifest: DataManifest) -> DataFigures | None:
    """Tokens by domain and language, dropped documents by reason, most first."""
    if not manifest.sources:
        return None
    tokens: Counter[tuple[str, str]] = Counter()
    for shard in manifest.shards:
        tokens[shard.domain, shard.language] += shard.tokens
    dropped = Counter(manifest.quality.dropped if manifest.quality else {})
    dropped["duplicate"] = sum(source.duplicates for source in manifest.sources)
    dropped["empty"] = sum(source.empty for source in manifest.sources)
    dropped["notUtf8"] = sum(source.invalid for source in manifest.sources)
    return DataFigures(
        tokens=[
            TokenCount(domain=domain, language=language, tokens=count)
            for (domain, language), count in tokens.most_common()
        ],
        dropped=[DropCount(reason=reason, documents=count) for reason, count in dropped.most_common() if count],
    )


def notices(settings: PrepareData, manifest: DataManifest) -> list[Notice]:
    """What is no failure and yet may surprise."""
    held_out = {shard.source for shard in manifest.shards if shard.split == "validation"}
    larger = "a larger spec.data.validationFraction"
    more_documents = "cutting it into several documents (a .txt file is one)"
    found = [
        Notice(
            reason="NothingHeldOut",
            message=f"source {source.name!r}: none of its {source.documents} documents is held out, so it has no "
            f"held-out figures; {more_documents if source.documents < 2 else larger} helps",
        )
        for source in manifest.sources
        if source.name not in held_out and (source.documents or not source.filtered)
    ]
    found += [
        Notice(
            reason="SourceDropped",
            message=f"source {source.name!r}: all {source.filtered} documents were dropped by spec.data.quality; "
            "quality/report.html in the prepared data says by which filter",
        )
        for source in manifest.sources
        if source.filtered and not source.documents
    ]
    found += [
        Notice(
            reason="DamagedFiles",
            message=f"source {source.name!r}: of {source.files} files {len(source.damaged)} of "
            f"{sum(each.bytes for each in source.damaged):,} bytes are damaged and were skipped from there on; "
            f"manifest.json of the prepared data names all. The first: {source.damaged[0].message}",
        )
        for source in manifest.sources
        if source.damaged
    ]
    if settings.data and settings.data.quality:
        found += [
            Notice(
                reason="NotFiltered",
                message=f"source {source.name!r} is tokens already: spec.data.quality does not apply to it",
            )
            for source in settings.data.sources
            if source.uri.endswith(TOKENS)
        ]
    wanted = settings.tokenizer.train
    if wanted and manifest.vocabulary_size < wanted.vocabulary_size:
        found.append(
            Notice(
                reason="SmallVocabulary",
                message=f"the corpus yields a vocabulary of {manifest.vocabulary_size} tokens, fewer than the "
                f"{wanted.vocabulary_size} of spec.tokenizer.train.vocabularySize",
            )
        )
    return found
