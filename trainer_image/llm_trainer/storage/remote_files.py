"""What a hub, a bucket or a server says that it has, and how it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llm_trainer.config.remote import Remote
from llm_trainer.runtime.errors import DataError

Tell = Callable[[int], None]  # so many more bytes were fetched


class TransientError(Exception):
    """The server, or the way to it, fails at this moment; the same request may go well later."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        """`wait`: seconds that the server asked for."""
        super().__init__(message)
        self.wait = wait


class ChangedError(Exception):
    """A file is another one than was listed."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    path: str  # below the repository, bucket or host
    size: int
    etag: str | None = None  # by which a change is noticed
    sha256: str | None = None  # if the server tells it
    git: str | None = None  # a blob's name, of small files on a hub


@dataclass(frozen=True, slots=True)
class Listing:
    """All files that a URI names, at one revision, in the order of their paths."""

    revision: str
    files: tuple[RemoteFile, ...]
    license: str = ""

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


class Source(Protocol):
    """Where files come from. All methods raise TransientError, and DataError for what a user has to change."""

    def listing(self, remote: Remote) -> Listing: ...

    def fetch(self, remote: Remote, file: RemoteFile, part: Path, tell: Tell) -> str:
        """Write it to `part`, going on with what is there; its sha256. Raises ChangedError too."""
        ...


class Ranges(Protocol):
    """A source that gives a file from any byte on."""

    def read(self, remote: Remote, file: RemoteFile, start: int, stop: int | None = None) -> Iterator[bytes]:
        """To its end, or to before `stop`, and perhaps more. Raises as a source does, and ChangedError."""
        ...


def refuse_nothing(uri: str, files: tuple[RemoteFile, ...], where: str) -> None:
    """Raises DataError where a URI names no file."""
    if not files:
        raise DataError(f"no file matches {uri} in {where}; check the path and the glob")
