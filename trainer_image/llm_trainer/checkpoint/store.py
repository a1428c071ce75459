"""The checkpoints of one stage: committed by all ranks or not there, verified before they are used.

Commit: temporary folder → every rank copies to memory → the training goes on, a thread writes, hashes and flushes → all
agree → manifest, COMPLETE → rename → `latest`. Two calls: `begin`, and `land` at a step at which all have written.
Once a newer attempt has claimed the stage, or another training the run folder, this one can't commit (`fence`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from llm_trainer.checkpoint.fence import Fence, temporary_name
from llm_trainer.checkpoint.files import (
    COMPLETE,
    MANIFEST,
    FileRecord,
    FolderManifest,
    altered_files,
    aside_of,
    committed,
    content_files,
    flush_folder,
    read_manifest,
    record,
    set_aside,
    unlisted,
    unreadable,
    write_durably,
)
from llm_trainer.checkpoint.flight import Flight
from llm_trainer.checkpoint.memory import room
from llm_trainer.checkpoint.rollbacks import superseded
from llm_trainer.checkpoint.snapshot import Buffers, Snapshot
from llm_trainer.config import StageConfig
from llm_trainer.protocol import CheckpointInfo, Notice
from llm_trainer.runtime.errors import (
    ConfigurationError,
    NoSpaceError,
    StageError,
    StorageError,
    classify,
    error_of,
    is_no_space,
)
from llm_trainer.runtime.process_group import ProcessGroup
from llm_trainer.runtime.removal import remove

TEXTS = TypeAdapter(list[str])
SHARE = TypeAdapter[tuple[str | None, list[str]]](tuple[str | None, list[str]])
PROBLEM = TypeAdapter[tuple[str, str] | None](tuple[str, str] | None)  # reason and message of a StageError

SHOWN = 5  # checkpoints that a message names


@dataclass(frozen=True)
class Part:
    """What one rank has done for a checkpoint. ``in_line``: bytes written while the training waited."""

    records: list[FileRecord]
    in_line: int
    problem: tuple[str, str] | None  # reason and message of a StageError


PART = TypeAdapter(Part)


@dataclass(frozen=True)
class Landing:
    """A checkpoint that counts. ``in_line``: bytes, of all ranks; ``seconds``: since it began."""

    folder: Path
    in_line: int
    seconds: float


@dataclass(frozen=True)
class CheckpointStore:
    config: StageConfig
    keep: int
    group: ProcessGroup
    buffers: Buffers = field(default_factory=Buffers)
    written: dict[str, str] = field(default_factory=dict)  # digests of this attempt's own, by URI; on rank 0

    @property
    def stage_folder(self) -> Path:
        return Path(self.config.stage_folder)

    @property
    def folder(self) -> Path:
        return self.stage_folder / "checkpoints"

    @property
    def uri(self) -> str:
        return f"{self.config.run_uri}/stages/{self.config.stage}/checkpoints"

    def uri_of(self, folder: Path) -> str:
        return f"{self.uri}/{folder.name}"

    def info(self, folder: Path, step: int) -> CheckpointInfo:
        """What is told of a committed checkpoint."""
        written = (folder / MANIFEST).stat().st_mtime
        return CheckpointInfo(step=step, uri=self.uri_of(folder), time=written, digest=read_manifest(folder).digest())

    def claim(self) -> None:
        """Clear what a crash left half-written, of the stage that `Fence.claim` has taken; raises as `Fence.check`."""
        self.check_fence()
        if self.group.is_first:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.stage_folder.glob("*/.tmp-*"):
                remove(left)
        self.group.barrier()

    def newest(self) -> tuple[Path | None, list[Notice]]:
        """The newest checkpoint whose files are all as written; None for a stage that has none at all.

        Newer ones that are not as written are set aside, each with a notice. Raises StorageError if one can't be read
        at this moment, and ConfigurationError if there are some and none is good: to begin anew would lose the stage's
        history in silence, and nothing is moved. Also if so many processes as there are now can't read it; a notice
        says where another number has written it.
        """
        bad: list[tuple[Path, str]] = []
        for folder in self._committed():
            problems = self._problems(folder)
            if not problems:
                notices = self._other_processes(folder)
                return folder, [self._set_aside(other, cause) for other, cause in bad] + notices
            bad.append((folder, problems[0]))
        if bad:
            named = "; ".join(f"{folder.name}: {cause}" for folder, cause in bad[:SHOWN])
            more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
            raise ConfigurationError(
                f"no checkpoint in {self.uri} can be used: {named}{more}. Restore one from a backup, or remove that "
                "folder to train the stage anew; then change spec.restartToken"
            )
        return None, []

    def _committed(self) -> list[Path]:
        """From the newest to the oldest, on all ranks alike."""
        found: list[Path] = []
        problem: StageError | None = None
        if self.group.is_first:
            try:
                found = sorted(committed(self.stage_folder), reverse=True)
            except StorageError as error:
                problem = error
        self._raise_first(problem)
        names = self.group.first([folder.name for folder in found], TEXTS)
        return [self.folder / Path(name).name for name in names]

    def begin(self, step: int, write: Callable[[Snapshot], None]) -> Flight:
        """Let every rank put its part into a snapshot, which is then written behind the training.

        The one before must have landed.
        """
        began, name = time.monotonic(), f"step-{step:08d}"
        temporary = self.folder / temporary_name(self.config, name)
        try:
            if self.group.is_first:
                remove(temporary)
                temporary.mkdir(parents=True)
            self.group.barrier()
            snapshot = Snapshot(temporary, self.buffers, partial(room, self.config.processes_per_node))
            write(snapshot)
        except (OSError, RuntimeError) as error:
            if not is_no_space(error):
                raise
            raise self._named(error, self.folder / name) from error
        return Flight(step, self.folder / name, snapshot, began)

    def land(self, flight: Flight, alive: Callable[[], None] = lambda: None, safe: int | None = None) -> Landing:
        """Wait until every rank has written, and make the folder the newest checkpoint.

        ``safe``: the newest of this step or an earlier one is kept too.
        Raises on all ranks what one of them met: NoSpaceError when the disk is full (what was committed before stays),
        StorageError; and as `Fence.check` does.
        """
        flight.wait(alive)
        snapshot, problem = flight.snapshot, flight.problem
        snapshot.close()
        own = Part(
            snapshot.records, snapshot.in_line, told_of(self._named(problem, flight.folder) if problem else None)
        )
        parts = self.group.gather(own, PART)
        self.check_fence()  # first: who has taken the stage clears what this attempt writes
        if told := next((part.problem for part in parts if part.problem), None):
            self._give_up(snapshot.folder)
            raise error_of(*told) from problem
        self._raise_first(self._published(flight, [entry for part in parts for entry in part.records], safe))
        return Landing(flight.folder, sum(part.in_line for part in parts), flight.seconds)

    def commit(self, step: int, write: Callable[[Snapshot], None]) -> Path:
        """Both at once."""
        return self.land(self.begin(step, write)).folder

    def _named(self, error: Exception, folder: Path) -> StageError:
        """What kept a checkpoint from being saved, for the user."""
        if is_no_space(error):
            return NoSpaceError(
                f"no space left to save checkpoint {folder.name} in {self.folder}; the one before it is kept. "
                "Enlarge the volume or lower checkpoint.keep."
            )
        _, reason, message = classify(error)
        return error_of(reason, f"checkpoint {folder.name} could not be saved, the one before it is kept: {message}")

    def _give_up(self, temporary: Path) -> None:
        """Nobody writes there any more; it may have taken the last of the disk."""
        if self.group.is_first:
            shutil.rmtree(temporary, ignore_errors=True)

    def _published(self, flight: Flight, records: list[FileRecord], safe: int | None) -> StageError | None:
        """On rank 0; what kept it from being so."""
        if not self.group.is_first:
            return None
        try:
            self._publish(flight, records)
            self._remove_superseded(safe)
        except StageError as error:
            return error
        except OSError as error:
            self._give_up(flight.snapshot.folder)
            return self._named(error, flight.folder)
        return None

    def _publish(self, flight: Flight, records: list[FileRecord]) -> None:
        temporary, final = flight.snapshot.folder, flight.folder
        known = {entry.path for entry in records}
        others = [file for file in content_files(temporary) if file.relative_to(temporary).as_posix() not in known]
        manifest = FolderManifest(
            kind="checkpoint",
            step=flight.step,
            attempt=self.config.attempt,
            world_size=self.group.world_size,
            files=sorted([*records, *(record(file, temporary) for file in others)], key=lambda entry: entry.path),
        )
        for folder in {(temporary / entry.path).parent for entry in manifest.files}:
            flush_folder(folder)
        write_durably(temporary / MANIFEST, manifest.model_dump_json(by_alias=True, indent=1))
        # before the rename: a crash between the two would leave one that is whole and counts as broken
        write_durably(temporary / COMPLETE, f"{self.config.attempt} {time.time():.0f}\n")
        remove(final)  # the same step, saved by an attempt that then went on and was lost
        temporary.rename(final)
        self.written[self.uri_of(final)] = manifest.digest()
        flush_folder(self.folder)
        write_durably(self.folder / "latest", final.name)

    def _remove_superseded(self, safe: int | None) -> None:
        folders = {step: folder for folder in self.folder.glob("step-*") if (step := step_of(folder)) >= 0}
        for step in superseded(list(folders), self.keep, safe):
            remove(folders[step])

    def steps(self) -> list[int]:
        """Of the committed checkpoints, good or bad; a collective."""
        return [step_of(folder) for folder in self._committed()]

    def discard(self, abandoned: Callable[[Path, int], bool]) -> None:
        """Remove committed checkpoints, by their folder and step, of a time that doesn't count any more; a collective.

        Raises as `Fence.check` and `newest` do.
        """
        self.check_fence()
        for folder in self._committed():
            if self.group.is_first and abandoned(folder, step_of(folder)):
                gone = self.folder / temporary_name(self.config, folder.name)  # a crash leaves no half of one
                remove(gone)
                folder.rename(gone)
                remove(gone)
        self.group.barrier()

    def _problems(self, folder: Path) -> list[str]:
        """What is wrong with a checkpoint, on all ranks alike. Raises StorageError if that can't be told."""
        found: list[str] = []
        unread: str | None = None
        try:
            found = self._own_share(folder)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:
            found = [f"its manifest can't be read: {error}".splitlines()[0]]
        except OSError as error:
            unread = str(unreadable(self.uri_of(folder), error))
        told = self.group.gather((unread, found), SHARE)
        if texts := [text for text, _ in told if text]:
            raise StorageError(texts[0])
        return [text for _, share in told for text in share]

    def _own_share(self, folder: Path) -> list[str]:
        """What is wrong, as far as this rank looks."""
        manifest, found = read_manifest(folder), []
        if not (folder / COMPLETE).exists():
            found.append("it was not completed")
        if self.group.is_first:
            found += unlisted(folder, manifest) + self._other_than_known(folder, manifest)
        return found + altered_files(folder, manifest.files[self.group.rank :: self.group.world_size])

    def _other_than_known(self, folder: Path, manifest: FolderManifest) -> list[str]:
        """What is whole may still have been put there by somebody else: the status has the digest."""
        uri, found = self.uri_of(folder), manifest.digest()
        known = self.written.get(uri, self.config.digests.get(uri))  # one of before may have had the same step
        return [f"its digest is {found} and was {known}"] if known not in (None, found) else []

    def _other_processes(self, folder: Path) -> list[Notice]:
        written_by, now = read_manifest(folder).world_size, self.group.world_size
        if written_by == now:
            return []
        if self.config.pretrain is not None and self.config.pretrain.expert_parallel > 1:
            raise ConfigurationError(
                f"checkpoint {folder.name} was written by {written_by} processes and this attempt has {now}, and with "
                "pretrain.expertParallel its experts lie with the processes that had them; use as many nodes and "
                "processes as before"
            )
        message = (
            f"checkpoint {folder.name} was written by {written_by} processes and is read by {now}: "
            "each takes its part of the optimizer's state from theirs"
        )
        return [Notice(reason="ProcessesChanged", message=message)]

    def _set_aside(self, folder: Path, cause: str) -> Notice:
        aside = aside_of(folder, self.config.attempt)
        if self.group.is_first:
            set_aside(folder, self.config.attempt)
        self.group.barrier()
        return Notice(
            reason="CheckpointSetAside",
            message=f"checkpoint {folder.name} is not used: {cause}. It is kept as {aside.name}; "
            "training goes on from the one before.",
        )

    def check_fence(self) -> None:
        """On all ranks alike; raises as `Fence.check` does."""
        self._raise_first(Fence(self.config).problem() if self.group.is_first else None)

    def _raise_first(self, problem: StageError | None) -> None:
        """Rank 0's, on every rank."""
        if told := self.group.first(told_of(problem), PROBLEM):
            raise error_of(*told)


def step_of(folder: Path) -> int:
    """Of a checkpoint, by its name; -1 for what isn't ours."""
    number = folder.name.removeprefix("step-")
    return int(number) if number.isdigit() else -1


def told_of(problem: StageError | None) -> tuple[str, str] | None:
    """Reason and message, as another rank takes them."""
    return (problem.reason, str(problem)) if problem else None
