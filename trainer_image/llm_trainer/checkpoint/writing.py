"""Files that are hashed while they are written, so that nothing is read again to know what it holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch
from blake3 import blake3

from llm_trainer.checkpoint.files import FileRecord

BLOCK = 1 << 24  # bytes handed on at once; hashing and writing them leave Python's lock to the training


@dataclass
class Written:
    """So far."""

    bytes: int = 0


class HashedFile:
    """Takes bytes one after another, as torch's zip writer gives them.

    A write that fails is told by `finish`: an exception that passes through torch's C++ loses its errno, or worse.
    """

    def __init__(self, path: Path, progress: Written) -> None:
        self._progress = progress
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._digest, self._size = blake3(), 0
        self._problem: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data).cast("B")
        for begin in range(0, len(view), BLOCK):
            self._put(view[begin : begin + BLOCK])
        return len(view)

    def _put(self, block: memoryview) -> None:
        if self._problem:
            return
        self._digest.update(block)
        self._size += len(block)
        try:
            while block:
                count = os.write(self._descriptor, block)
                self._progress.bytes += count
                block = block[count:]
        except OSError as error:
            self._problem = error

    def flush(self) -> None:
        """Which torch calls at its end; `finish` does it."""

    def finish(self) -> tuple[int, str]:
        """Size and BLAKE3 digest of what lies on the disk now. Raises the OSError of the first write that failed."""
        try:
            if self._problem:
                raise self._problem
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)
        return self._size, self._digest.hexdigest()


def write_hashed(content: Any, file: Path, folder: Path, progress: Written) -> FileRecord:
    """A text as it is, anything else as torch writes it. Raises OSError."""
    stream = HashedFile(file, progress)
    try:
        if isinstance(content, str):
            stream.write(content.encode())
        else:
            torch.save(content, cast(IO[bytes], stream))  # it needs write and flush
    finally:
        size, digest = stream.finish()
    return FileRecord(path=str(file.relative_to(folder)), size=size, blake3=digest)
