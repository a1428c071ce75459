"""Data preparation: checks every dataset of the training, then makes the tokenizer and the shards. One process.

Missing files and bad rows are told before transformers is imported, and torch models only for an architecture.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llm_trainer.checkpoint.fence import Fence, writer_of
from llm_trainer.checkpoint.record import read_record
from llm_trainer.config import DatasetCheck, FunctionCheck, ModelCheck, PrepareData, StageConfig, local_path
from llm_trainer.data.corpus import find_sources
from llm_trainer.data.files import find_files
from llm_trainer.data.manifest import TOKENIZER, DataManifest, read_manifest
from llm_trainer.data.rows import SUFFIXES, read_rows, refuse_warmup
from llm_trainer.protocol import Notice, Result
from llm_trainer.rl.reward_functions import load_reward
from llm_trainer.runtime.errors import DataError, PreemptedError
from llm_trainer.runtime.functions import load_function
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.signals import StopSignal
from llm_trainer.runtime.startup import importing
from llm_trainer.stages.named_models import check_files, check_weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llm_trainer.data.prepare import Step

Check = TypeVar("Check", DatasetCheck, ModelCheck)


def run(config: StageConfig, board: Board) -> str:
    """The message of the end. Raises DataError and ConfigurationError for what a user has to change."""
    settings = config.prepare_data
    assert settings  # noqa: S101 -- the caller chose this stage by it
    stop = StopSignal()
    stop.listen()

    def leave_if_asked() -> None:
        if stop.asked:
            raise PreemptedError("asked to leave while preparing data; the next attempt starts it again")

    def report(step: Step) -> None:
        leave_if_asked()
        board.update(phase="Preparing", step=percent(step), total_steps=100, tokens=step.tokens)

    def alive() -> None:
        leave_if_asked()
        board.update(phase="Preparing")

    datasets, models = unfinished(config, settings.datasets), unfinished(config, settings.models)
    settings = settings.model_copy(update={"datasets": datasets, "models": models})
    for model in settings.models:
        check_files(model, config.volumes_root, leave_if_asked)
    rows = [f"{check_dataset(check, config.volumes_root):,} rows in {check.uri}" for check in settings.datasets]
    for check in settings.functions:
        check_function(check)
    if settings.architecture and settings.architecture.function:
        load_function(settings.architecture.function, "spec.model.architecture.function")
    with importing():
        from llm_trainer.data.prepare import prepare
        from llm_trainer.data.tokenizer import load_tokenizer
        from llm_trainer.data.tokenizer_checks import check_rows
    before = made_before(config, board)
    twice = [] if before else linked_twice(settings, config.volumes_root)
    manifest = before or prepare(
        settings, Path(config.data_folder), config.volumes_root, writer_of(config), report, Fence(config).check
    )
    tokenizer = load_tokenizer(Path(config.data_folder) / TOKENIZER, "the training's tokenizer")
    if settings.architecture:
        with importing():
            from llm_trainer.models.build import check_architecture
        check_architecture(settings.architecture, tokenizer)
    found: list[Notice] = []
    for model in settings.models:
        leave_if_asked()
        said, told = check_weights(model, tokenizer, config.volumes_root)
        rows, found = [*rows, said], [*found, *told]
    for notice in [*found, *twice, *notices(settings, manifest)]:
        board.notice(notice.reason, notice.message)
    for dataset in settings.datasets:
        own = tokenizer if dataset.training_tokenizer else tokenizer_of(dataset, tokenizer, config.volumes_root)
        for notice in check_rows(dataset, own, config.volumes_root, alive) if own else ():
            board.notice(notice.reason, notice.message)
    result = Result(uri=f"{config.run_uri}/data", digest=manifest.digest, kind="data")
    board.update(phase="Done", step=100, total_steps=100, tokens=manifest.tokens("train"), result=result)
    return "; ".join([summary(manifest), *rows])


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


def linked_twice(settings: PrepareData, volumes_root: str) -> list[Notice]:
    """Of files that a URI's glob finds by several names, and that are read once."""
    found = [files for _, files in find_sources(settings.data, volumes_root)] if settings.data else []
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


def tokenizer_of(
    check: DatasetCheck, training: PreTrainedTokenizerBase, volumes_root: str
) -> PreTrainedTokenizerBase | None:
    """That by which the stage will read the rows, as `fine_tuning.find_tokenizer` does; None if it isn't there yet."""
    from llm_trainer.data.tokenizer import load_tokenizer

    if check.model_uri is None:
        return None
    folder = Path(local_path(check.model_uri, volumes_root))
    if not folder.is_dir():
        return None
    own = (folder / "tokenizer_config.json").is_file()
    return load_tokenizer(folder, f"the tokenizer of {check.model_uri}") if own else training


def percent(step: Step) -> int:
    """The first half is for the tokenizer, the second for the tokens; a loaded tokenizer starts at the second."""
    share = step.done / max(1, step.total)
    return int(50 * share) + (50 if step.phase == "Tokens" else 0)


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
    }
    parts += [f"{count:,} {name} dropped" for name, count in dropped.items() if count]
    return ", ".join(parts)


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
        if source.name not in held_out
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
