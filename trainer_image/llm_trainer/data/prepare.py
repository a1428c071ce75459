"""The corpus becomes tokens: reads the sources, makes the tokenizer, writes shards and manifest in one move.

Any number of processes, in one pod or several, do it together (sharing.py): each phase is work on units (units.py),
then something that needs all of them. What a phase makes stays until all is done, so that the next attempt goes on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from llm_trainer.config import Decontamination, PrepareData, local_path
from llm_trainer.data.assembly import refuse_few
from llm_trainer.data.files import Streams
from llm_trainer.data.kept_rows import tokenizer_content
from llm_trainer.data.manifest import DataManifest, is_complete, read_manifest
from llm_trainer.data.phases import Phases, Task
from llm_trainer.data.prepared import find_prepared, note_prepared, take_over
from llm_trainer.data.progress import Meter, Report, Step
from llm_trainer.data.quality.contamination import evaluation_files
from llm_trainer.data.quality.selection import REFUSED
from llm_trainer.data.sharing import PAUSE_SECONDS, Sharing, flush
from llm_trainer.data.tokenized import apart, refuse_other_tokenizers
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.data.units import code_digest, file_identity, find_sources, key_of, units_of
from llm_trainer.runtime.errors import DataError, PeerLostError
from llm_trainer.runtime.removal import remove

WORK = ".data-work"  # beside the data's folder, until that is there
LOOK_SECONDS = 2.0  # between two looks whether the others have ended

Check = Callable[[], None]  # raises when this attempt may no longer write


@dataclass(frozen=True)
class Member:
    """One of the processes that prepare together. The first one publishes what all have made."""

    rank: str = "0"
    first: bool = True
    processes: int = 1  # in all, about
    patience_seconds: float = 1800  # for the first one to begin


def prepare(
    config: PrepareData,
    data_folder: Path,
    volumes_root: str,
    writer: str,
    report: Report,
    check: Check = lambda: None,
    member: Member = Member(),
    streams: Streams = MappingProxyType({}),
) -> DataManifest:
    """Prepare the corpus and the tokenizer into `data_folder`, which appears whole or not at all.

    Does nothing if the folder holds what the same settings made of the same files. `writer` tells this attempt from
    others, which may still live: what they were at is removed, and they don't touch what this one is at. Raises
    DataError or ConfigurationError for what a user has to change, OSError when the disk is full, and what `check` does.
    """
    made = Preparation(config, data_folder, volumes_root, writer, report, check, member, streams)
    if manifest := made.finished():
        made.clear()
        return manifest
    try:
        return made.begin_and_end() if member.first else made.help()
    except (_FinishedError, FileNotFoundError):  # the first one has removed what all had worked on
        if not member.first and (manifest := made.finished()):
            return manifest
        raise


class _FinishedError(Exception):
    """The first process has published."""


class Preparation:
    """One process's part of it."""

    def __init__(
        self, config: PrepareData, data_folder: Path, volumes_root: str, writer: str, report: Report, check: Check,
        member: Member, streams: Streams,
    ) -> None:  # fmt: skip
        self.config, self.data_folder, self.volumes_root = config, data_folder, volumes_root
        self.member, self.check = member, check
        self.run_folder = data_folder.parent
        self.work = self.run_folder / WORK
        self.begun = self.work / f".begun-{writer}"
        self.whole = self.run_folder / f".{data_folder.name}-{writer}"
        sources, self.tokens = apart(find_sources(config.data, volumes_root, streams) if config.data else [])
        refuse_other_tokenizers(config, self.tokens)
        self.units = units_of(config.data, sources) if config.data else []
        wanted = config.tokenizer.uri
        loaded = load_tokenizer(local_path(wanted, volumes_root), "spec.tokenizer.uri") if wanted else None
        content = [tokenizer_content(loaded) if loaded else None, evaluation_identity(config, volumes_root)]
        settings = config.model_dump(mode="json", include={"data", "tokenizer"})
        taken = [file_identity(files, path) for _, files in self.tokens for path in files.paths]
        self.fingerprint = key_of([settings, [unit.key for unit in self.units], taken, content, code_digest()])
        self.meter = Meter(report, quality=bool(config.data and config.data.quality))
        self._looked = time.monotonic()
        sharing = Sharing(self.work, writer, member.rank, member.first, check, self.wait)
        task = Task(config, self.units, volumes_root, loaded, content)
        # with fewer units than processes some would have nothing to do
        self.phases = Phases(task, sharing, self.meter, threads=len(self.units) < max(2, member.processes))

    def finished(self) -> DataManifest | None:
        """What is there, if it is what would be made."""
        manifest = read_manifest(self.data_folder)
        if manifest and manifest.fingerprint == self.fingerprint and is_complete(self.data_folder, manifest):
            return manifest
        return None

    def wait(self) -> None:
        """While others work. Raises to leave, if this attempt may not write any more, or if all is done."""
        self.meter.show()
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        self.meter.look()
        self.check()
        if not self.member.first and self.finished():
            raise _FinishedError

    # --- the first process ---

    def begin_and_end(self) -> DataManifest:
        """Prepare with whoever helps, or take what is prepared already, and publish it."""
        self.check()
        self.run_folder.mkdir(parents=True, exist_ok=True)
        for leftover in self._leftovers():
            if leftover != self.work:
                remove(leftover)
        try:
            manifest = self._take_over()
            if manifest and manifest.sources:
                refuse_few(manifest.tokens("train"), self.config.sequence_length)
            if manifest is None:
                self.work.mkdir(exist_ok=True)
                for marker in self.work.glob(".begun-*"):
                    remove(marker)
                self.begun.write_text(self.fingerprint)
                made = replace(self.phases.run(self.run_folder / REFUSED), taken=self.tokens)
                made.refuse_small(self.config.sequence_length)
                self.check()
                self.whole.mkdir()
                manifest = made.write(self.whole, self.fingerprint, self.meter.show)
            self._publish()
        finally:
            shutil.rmtree(self.whole, ignore_errors=True)
        note_prepared(self.volumes_root, self.data_folder, manifest)
        remove(self.work)
        return manifest

    def _leftovers(self) -> list[Path]:
        return sorted(self.run_folder.glob(f".{self.data_folder.name}-*"))

    def clear(self) -> None:
        """What an attempt left that died between the publication and its end."""
        if self.member.first and (left := self._leftovers()):
            self.check()
            for leftover in left:
                remove(leftover)

    def _take_over(self) -> DataManifest | None:
        """Of another training on the claim, which has prepared the same."""
        found = find_prepared(self.volumes_root, self.data_folder, self.fingerprint)
        return take_over(found, self.whole, self.meter.show) if found else None

    def _publish(self) -> None:
        flush(self.whole)
        self.check()
        replaced = self.whole.with_name(f"{self.whole.name}-replaced")
        if self.data_folder.exists():
            self.data_folder.rename(replaced)
        self.whole.rename(self.data_folder)
        remove(self.run_folder / REFUSED)
        remove(replaced)

    # --- the others ---

    def help(self) -> DataManifest:
        """Work with the first one, until it has published."""
        self._await_first()
        self.phases.run(self.run_folder / REFUSED)
        while not (manifest := self.finished()):
            self.wait()
            time.sleep(PAUSE_SECONDS)
        return manifest

    def _await_first(self) -> None:
        end = time.monotonic() + self.member.patience_seconds
        while not self.begun.exists():
            self.wait()
            if time.monotonic() > end:
                raise PeerLostError("the first pod has not begun to prepare the data")
            time.sleep(PAUSE_SECONDS)
        if (told := self.begun.read_text()) and told != self.fingerprint:
            raise DataError(
                "spec.data: pods see other files, or of another size or time; let nobody write there until it is done"
            )


def evaluation_identity(config: PrepareData, volumes_root: str) -> list[object]:
    """Of the files that the corpus must not quote."""
    quality = config.data.quality if config.data else None
    wanted: Decontamination | None = quality.decontamination if quality else None
    return [
        file_identity(files, path)
        for files in (evaluation_files(wanted, volumes_root) if wanted else [])
        for path in files.paths
    ]


__all__ = ["Member", "Report", "Step", "prepare"]
