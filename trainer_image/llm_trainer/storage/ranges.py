"""A file, fetched range after range: what a kill, a lost connection or a slow server leaves is gone on with."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from llm_trainer.config.remote import Remote, shown
from llm_trainer.runtime.errors import DataError
from llm_trainer.storage.remote_files import ChangedError, Ranges, RemoteFile, Tell, TransientError
from llm_trainer.storage.retry import TRIES, Sleep, pause

COMMIT_BYTES = 16 << 20  # after so many they are flushed, and a next attempt needs not fetch them again
BEHIND = 8 * COMMIT_BYTES  # that the disk may be behind the server
BLOCK = 1 << 22


def fetch_ranges(
    source: Ranges, remote: Remote, file: RemoteFile, part: Path, tell: Tell, sleep: Sleep = time.sleep
) -> str:
    """Write `file` to `part`, going on behind what was committed there; its sha256.

    Raises ChangedError for a file that is no longer the one that was listed, TransientError after TRIES without a byte.
    """
    state = part.with_name(f"{part.name}.json")
    wanted = {"etag": file.etag, "size": file.size}
    known = _read(state)
    committed = int(known.get("committed", 0)) if {key: known.get(key) for key in wanted} == wanted else 0
    digest = hashlib.sha256()
    with part.open("r+b" if part.is_file() else "w+b") as stream:
        committed = _take_up(stream, committed, digest)
        tell(committed)
        failures = 0
        while committed < file.size or failures:
            before = committed
            try:
                with Commits.beside(stream, state, wanted) as commits:
                    committed = _go_on(source.read(remote, file, committed), file, stream, digest, commits, tell)
                if committed == file.size:
                    break
                raise TransientError(f"the server closed after {committed} of {file.size} bytes")
            except TransientError as error:
                committed = stream.tell()
                stream.flush()
                _commit(stream.fileno(), state, {**wanted, "committed": committed})
                failures = 0 if committed > before else failures + 1
                if failures == TRIES:
                    raise
                sleep(pause(failures, error.wait))
        stream.flush()
        os.fsync(stream.fileno())
    state.unlink(missing_ok=True)
    return digest.hexdigest()


class Commits:
    """What is flushed to the disk while more is received: neither the server nor the disk waits for the other."""

    def __init__(self, stream: Any, state: Path, wanted: dict[str, Any], pool: ThreadPoolExecutor) -> None:
        self._stream, self._state, self._wanted, self._pool = stream, state, wanted, pool
        self._begun = stream.tell()
        self._running: Future[None] | None = None

    @classmethod
    @contextmanager
    def beside(cls, stream: Any, state: Path, wanted: dict[str, Any]) -> Iterator[Commits]:
        """None runs on behind the block. Raises what the disk raised, which it says once alone."""
        with ThreadPoolExecutor(1, "commit") as pool:
            commits = cls(stream, state, wanted, pool)
            try:
                yield commits
            finally:
                commits.land()

    def reached(self, at: int) -> None:
        """So many bytes of the file are written. Raises what the disk raised, and waits for one that is far behind."""
        if at - self._begun < COMMIT_BYTES:
            return
        if self._running and not self._running.done() and at - self._begun < BEHIND:
            return
        self.land()
        self._begun = at
        self._stream.flush()
        said = {**self._wanted, "committed": at}
        self._running = self._pool.submit(_commit, self._stream.fileno(), self._state, said)

    def land(self) -> None:
        if self._running:
            self._running.result()


def _go_on(blocks: Iterator[bytes], file: RemoteFile, stream: Any, digest: Any, commits: Commits, tell: Tell) -> int:
    """One answer, from where the stream is on: the bytes that are there after it."""
    at: int = stream.tell()
    with closing(blocks):  # type: ignore[type-var]
        for block in blocks:
            if at + len(block) > file.size:
                raise ChangedError(f"{file.path} is longer than the {file.size} bytes that were listed")
            stream.write(block)
            digest.update(block)
            at += len(block)
            tell(len(block))
            commits.reached(at)
    return at


def _take_up(stream: Any, committed: int, digest: Any) -> int:
    """Hash what was committed and cut off what comes after; how much that is."""
    there = os.fstat(stream.fileno()).st_size
    committed = committed if committed <= there else 0
    left = committed
    while left and (block := stream.read(min(BLOCK, left))):
        digest.update(block)
        left -= len(block)
    stream.truncate(committed)
    stream.seek(committed)
    return committed


def _commit(descriptor: int, state: Path, said: dict[str, Any]) -> None:
    os.fsync(descriptor)
    new = state.with_name(f"{state.name}.new")
    new.write_text(json.dumps(said))
    new.rename(state)


def _read(state: Path) -> dict[str, Any]:
    try:
        said = json.loads(state.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def refuse_other_content(uri: str, file: RemoteFile, sha256: str) -> None:
    """Raises DataError for bytes that are not those that the server has a digest of."""
    if file.sha256 and file.sha256 != sha256:
        raise DataError(
            f"{shown(uri)}: {file.path} has the sha256 {sha256}, and {file.sha256} was told; it was damaged"
        )
