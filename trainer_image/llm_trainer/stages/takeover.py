"""What every stage does before and after its own work: takes its folder, and leaves there how it ended.

A folder may hold what an earlier attempt has made, or another training whose run folder this one takes up
(spec.resumeFrom). A finished stage is not made again if it is what this configuration would make.
"""

from __future__ import annotations

from pathlib import Path

from llm_trainer.checkpoint.fence import Fence
from llm_trainer.checkpoint.files import MANIFEST, alteration, committed, read_manifest, set_aside
from llm_trainer.checkpoint.record import StageRecord, read_record, record_of, write_record
from llm_trainer.checkpoint.rollbacks import set_journals_aside
from llm_trainer.config import StageConfig, local_path, settings_of
from llm_trainer.data.manifest import read_manifest as read_data_manifest
from llm_trainer.protocol import Progress
from llm_trainer.runtime.errors import ConfigurationError, DataError, EvaluationError
from llm_trainer.runtime.progress import Board
from llm_trainer.stages.differences import DATA, differences, input_uris, listed
from llm_trainer.stages.thresholds import metrics_of, missed
from llm_trainer.stages.told_before import told_before


def begin(config: StageConfig, board: Board, rank: int) -> str | None:
    """Take the stage; the message of the end if there is nothing left to do, the same on every rank.

    Every rank reads the record, rank 0 alone checks files and writes. A stage of the training's own whose settings
    have changed begins anew. Raises ConfigurationError for a folder that is not this training's, or that holds what
    another training has made from another configuration, and StaleAttemptError.
    """
    fence, folder = Fence(config), Path(config.stage_folder)
    fence.check(claiming=True)
    record, digests = read_record(folder), input_digests(config)
    another = record is not None and record.uid != config.uid
    found = compared(record, config, digests) if record else []
    if record and another and found:
        raise ConfigurationError(refusal(record, config, found))
    if rank == 0:
        fence.claim()
        if found:
            begin_anew(config, board, found)
    if record and record.end and not found:
        # Data preparation still checks the datasets of stages to come.
        return None if config.prepare_data else finished(record, config, board, rank)
    if rank == 0:
        if record and another and has_checkpoints(folder):
            board.notice("TakenOver", f"stage {config.stage} goes on from the checkpoints of {record.owner}")
        write_record(folder, record_of(config, digests))
    return None


def end(config: StageConfig, progress: Progress) -> None:
    """Note down that the stage has its result; rank 0 only. Raises as `Fence.check` does."""
    if progress.result is None:
        return
    Fence(config).check()
    folder = Path(config.stage_folder)
    begun = read_record(folder)  # by this attempt: what it was made from was read then
    digests = begun.digests if begun else input_digests(config)
    told = progress.model_copy(update={"workers": [], "notices": []})
    write_record(folder, record_of(config, digests, told))


def begin_anew(config: StageConfig, board: Board, found: list[str]) -> None:
    """For a stage of the training's own that failed and was corrected: what it made before is kept, and not mixed."""
    checkpoints = sorted(committed(Path(config.stage_folder)))
    for folder in checkpoints:
        set_aside(folder, config.attempt)
    set_journals_aside(Path(config.stage_folder) / "checkpoints", config.attempt)
    if checkpoints:
        board.notice(
            "StageBeginsAnew",
            f"settings have changed since its checkpoints were made: {listed(found)}. They are kept as set-aside-* in "
            f"{config.run_uri}/stages/{config.stage}/checkpoints; delete them when you don't need them",
        )


def compared(record: StageRecord, config: StageConfig, digests: dict[str, str]) -> list[str]:
    """In what a stage differs from what its folder holds; empty for a folder without anything to mix with."""
    if record.end is None and not has_checkpoints(Path(config.stage_folder)):
        return []
    return differences(record.stage_config(), config, record.digests, digests, whole=record.end is not None)


def refusal(record: StageRecord, config: StageConfig, found: list[str]) -> str:
    has = "the result" if record.end else "checkpoints"
    if config.prepare_data:
        what, paths = "the data", [f"spec.{text}" for text in found]
        todo = "use these values again, or leave out spec.resumeFrom; spec.model.uri can name a result of that run"
    else:
        what, paths = f"stage {config.stage!r}", found
        todo = "use these values again, or give the stage another name: it is then trained anew"
    return f"{config.run_uri} holds {has} of {what} from another configuration: {listed(paths)}; {todo}"


def finished(record: StageRecord, config: StageConfig, board: Board, rank: int) -> str:
    """Tell the result that is there as the stage's own. Raises DataError if it is not as it was written."""
    told = record.end
    result = told.result if told else None
    assert told  # noqa: S101 -- the caller has seen it
    assert result  # noqa: S101 -- there is no end without it
    uri = record.moved(result.uri, config.run_uri)
    said = f"the result of step {told.step} was made before by {record.owner}"
    if rank != 0:
        return said
    judge_again(config, told, board)
    refuse_altered(uri, Path(local_path(uri, config.volumes_root)), result.digest)
    base = record.moved(result.base, config.run_uri) if result.base else None
    checkpoint = told.checkpoint
    if checkpoint:
        checkpoint = checkpoint.model_copy(update={"uri": record.moved(checkpoint.uri, config.run_uri)})
    board.take_over(
        told.model_copy(
            update={"result": result.model_copy(update={"uri": uri, "base": base}), "checkpoint": checkpoint}
        )
    )
    board.notice("TakenOver", f"stage {config.stage}: {said}; its files are as they were written")
    return said


def judge_again(config: StageConfig, told: Progress, board: Board) -> None:
    """Thresholds may be others than those by which the result was published. Raises EvaluationError."""
    settings = settings_of(config)
    if settings is None:
        return
    earlier = told_before(config, settings)
    if not (problems := missed(settings.evaluation.thresholds, metrics_of(told.evaluation, told.scores), earlier)):
        return
    said = f"the result that was made before: {'; '.join(problems)}"
    if settings.evaluation.gate == "block":
        raise EvaluationError(f"{said}. Correct evaluation.thresholds, or give the stage another name to train it anew")
    board.notice("ThresholdMissed", f"{said}; it is taken over, as evaluation.gate is {settings.evaluation.gate}")


def refuse_altered(uri: str, folder: Path, digest: str) -> None:
    """Raises DataError for a result whose files are not those that were written."""
    if problem := alteration(folder, digest):
        raise DataError(
            f"the result {uri} can't be taken over: {problem}; restore it, or give the stage another name: it is then "
            "trained anew"
        )


def input_digests(config: StageConfig) -> dict[str, str]:
    """Of what a stage is made from, as far as we have written it."""
    found: dict[str, str] = {}
    for name, uri in input_uris(config).items():
        folder = Path(local_path(uri, config.volumes_root))
        if name == DATA:
            if data := read_data_manifest(folder):
                found[name] = data.digest
        elif (folder / MANIFEST).is_file():
            found[name] = read_manifest(folder).digest()
    return found


def has_checkpoints(stage_folder: Path) -> bool:
    return bool(committed(stage_folder))
