"""The checkpoints of one stage: committed by all ranks or not there, verified before they are used.

Commit: temporary folder → every rank writes → hashes, fsync → manifest, COMPLETE → all agree → rename → `latest`.
Once a newer attempt has claimed the stage, or another training the run folder, this one can't commit (`fence`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from llm_trainer.config import StageConfig
from llm_trainer.protocol import CheckpointInfo, Notice
from llm_trainer.runtime.errors import (
    ConfigurationError,
    NoSpaceError,
    StageError,
    StorageError,
    error_of,
    is_no_space,
)
from llm_trainer.runtime.process_group import ProcessGroup
from llm_trainer.runtime.removal import remove

TEXTS = TypeAdapter(list[str])
SHARE = TypeAdapter[tuple[str | None, list[str]]](tuple[str | None, list[str]])
RECORDS = TypeAdapter(list[FileRecord])
PROBLEM = TypeAdapter[tuple[str, str] | None](tuple[str, str] | None)  # reason and message of a StageError

SHOWN = 5  # checkpoints that a message names


@dataclass(frozen=True)
class CheckpointStore:
    config: StageConfig
    keep: int
    group: ProcessGroup

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
        history in silence, and nothing is moved. Also if so many processes as there are now can't read it.
        """
        bad: list[tuple[Path, str]] = []
        for folder in self._committed():
            problems = self._problems(folder)
            if not problems:
                self._check_world_size(folder)
                return folder, [self._set_aside(other, cause) for other, cause in bad]
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

    def commit(self, step: int, write: Callable[[Path], None]) -> Path:
        """Let every rank write its files into a folder and make that folder the newest checkpoint.

        Raises NoSpaceError when the disk is full (what was committed before stays), and as `Fence.check` does.
        """
        name = f"step-{step:08d}"
        temporary, final = self.folder / temporary_name(self.config, name), self.folder / name
        if self.group.is_first:
            remove(temporary)
            temporary.mkdir(parents=True)
        self.group.barrier()
        try:
            write(temporary)
            self.group.barrier()
            files = self._hash(temporary)
            self.check_fence()
            if self.group.is_first:
                self._publish(temporary, final, step, files)
        except (OSError, RuntimeError) as error:
            if not is_no_space(error):
                raise
            shutil.rmtree(temporary, ignore_errors=True)
            raise NoSpaceError(
                f"no space left to save checkpoint {name} in {self.folder}; the one before it is kept. "
                "Enlarge the volume or lower checkpoint.keep."
            ) from error
        self.group.barrier()
        return final

    def _publish(self, temporary: Path, final: Path, step: int, files: list[FileRecord]) -> None:
        manifest = FolderManifest(
            kind="checkpoint", step=step, attempt=self.config.attempt, world_size=self.group.world_size, files=files
        )
        write_durably(temporary / MANIFEST, manifest.model_dump_json(by_alias=True, indent=1))
        # before the rename: a crash between the two would leave one that is whole and counts as broken
        write_durably(temporary / COMPLETE, f"{self.config.attempt} {time.time():.0f}\n")
        remove(final)  # the same step, saved by an attempt that then went on and was lost
        temporary.rename(final)
        flush_folder(self.folder)
        write_durably(self.folder / "latest", final.name)
        for old in sorted(self.folder.glob("step-*"))[: -self.keep]:
            remove(old)

    def _hash(self, folder: Path) -> list[FileRecord]:
        """Records of all files; the ranks share the work."""
        mine = content_files(folder)[self.group.rank :: self.group.world_size]
        shares = self.group.gather([record(file, folder) for file in mine], RECORDS)
        return sorted((entry for share in shares for entry in share), key=lambda entry: entry.path)

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
        known, found = self.config.digests.get(self.uri_of(folder)), manifest.digest()
        return [f"its digest is {found} and was {known}"] if known not in (None, found) else []

    def _check_world_size(self, folder: Path) -> None:
        written_by, now = read_manifest(folder).world_size, self.group.world_size
        if written_by != now:
            raise ConfigurationError(
                f"checkpoint {folder.name} was written by {written_by} processes and this attempt has {now}; use as "
                "many nodes and processes as before"
            )

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
        if told := self.group.first((problem.reason, str(problem)) if problem else None, PROBLEM):
            raise error_of(*told)
