"""How the processes of a stage, in any number of pods, share work: through files on the claim, by no other channel.

A piece of work makes a folder, which appears whole or not at all under a name that tells what it is made from. Who
finds it doesn't make it again: another process, or the next attempt. Two that make the same one make the same bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_trainer.runtime.removal import remove

PAUSE_SECONDS = 0.2
_TAKEN, _TEMPORARY = ".taken-", ".tmp-"


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of work; `make` writes into an empty folder."""

    key: str
    make: Callable[[Path], None]


@dataclass(frozen=True)
class Sharing:
    """One process's view. `attempt`: a name that all processes of this attempt have and no other; `rank` tells them
    apart; the first one also removes what is left of others.
    """

    folder: Path
    attempt: str
    rank: str = "0"
    first: bool = True
    may_write: Callable[[], None] = lambda: None  # raises where this attempt may not, or all is done
    waiting: Callable[[], None] = lambda: None  # called while others work; raises to leave

    def path(self, phase: str, key: str) -> Path:
        return self.folder / phase / key

    def done(self, phase: str) -> set[str]:
        """Keys of what is made."""
        with os.scandir(self.folder / phase) as entries:
            return {entry.name for entry in entries if not entry.name.startswith(".")}

    def share(self, phase: str, pieces: Sequence[Piece]) -> list[Path]:
        """Returns when all are made, by whomever. Raises what a piece of this process raises."""
        folder = self.folder / phase
        folder.mkdir(exist_ok=True)
        if self.first:
            self.may_write()
            self._sweep(folder, {piece.key for piece in pieces})
        done = self.done(phase)
        for piece in pieces:
            if piece.key not in done and not (folder / piece.key).exists() and self._take(folder, piece):
                self._make(folder, piece)
        while {piece.key for piece in pieces} - self.done(phase):
            self.waiting()
            time.sleep(PAUSE_SECONDS)
        return [folder / piece.key for piece in pieces]

    def _take(self, folder: Path, piece: Piece) -> bool:
        """Whether this process is the first of its attempt to ask for the piece. What others of an attempt have taken
        they make, or the attempt ends as a whole.
        """
        try:
            os.close(os.open(folder / f"{_TAKEN}{self.attempt}-{piece.key}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True

    def _make(self, folder: Path, piece: Piece) -> None:
        temporary = folder / f"{_TEMPORARY}{self.attempt}-{self.rank}-{piece.key}"
        temporary.mkdir()
        try:
            piece.make(temporary)
            flush(temporary)
            self.may_write()
            try:
                temporary.rename(folder / piece.key)
            except OSError:
                if not (folder / piece.key).is_dir():  # else another attempt, which may still live, has made it
                    raise
        finally:
            remove(temporary)

    def _sweep(self, folder: Path, keys: set[str]) -> None:
        """What other attempts were at, and what is made from something else."""
        own = tuple(f"{mark}{self.attempt}-" for mark in (_TAKEN, _TEMPORARY))
        for entry in list(folder.iterdir()):
            if entry.name not in keys and not entry.name.startswith(own):
                remove(entry)


def flush(folder: Path) -> None:
    """What is renamed next must be on the disk."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
