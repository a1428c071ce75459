"""Files that are read where they lie: a corpus too large for a copy on the claim.

What was listed stands beside the cache, `REVISION.….streamed.json`: every pod and every attempt reads the same files.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydantic import TypeAdapter

from llm_trainer.checkpoint.files import write_durably
from llm_trainer.config import CACHE, RemoteInput, StageConfig, claim_of, local_path, parse
from llm_trainer.config.remote import Remote, shown
from llm_trainer.runtime.errors import DataError, StorageError
from llm_trainer.storage.cache import listed
from llm_trainer.storage.remote_files import ChangedError, Listing, Ranges, RemoteFile, Source, TransientError
from llm_trainer.storage.request import InputFetched, Request, read_inputs
from llm_trainer.storage.retry import TRIES, Sleep, pause
from llm_trainer.storage.sources import Sources

# Bytes that are asked for at a time: the first is what a small file has, and twice as many while it is read on.
LEAST, MOST = 1 << 20, 64 << 20

Listings = TypeAdapter(Listing)


def listing_file(cache: Path, remote: Remote, revision: str) -> Path:
    folder = cache / remote.place(revision)
    name = hashlib.sha256(f"{remote.path}\0{remote.query}".encode()).hexdigest()[:16]
    return folder.with_name(f"{folder.name}.{name}.streamed.json")


def list_stream(wanted: RemoteInput, source: Source, cache: Path) -> Listing:
    """Note down what a URI names. Raises DataError, and StorageError where the server fails for long."""
    try:
        listing = listed(wanted, source)
    except TransientError as error:
        raise StorageError(f"{shown(wanted.uri)} can't be listed at this moment: {error}") from error
    if unmarked := next((file for file in listing.files if not file.etag), None):
        raise DataError(
            f"{shown(wanted.uri)}: the server gives {unmarked.path} neither an ETag nor a time, so a change between "
            "two reads would not be noticed; remove stream"
        )
    file = listing_file(cache, parse(wanted.uri), listing.revision)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_durably(file, Listings.dump_json(listing).decode() + "\n")
    return listing


def open_streams(config: StageConfig) -> dict[str, StreamedFiles]:
    """What data preparation reads where it lies, by the pvc:// URI that stands for it."""
    settings, found = config.prepare_data, read_inputs(Path(config.run_folder))
    if settings is None or not any(each.streamed for each in found):
        return {}
    cache = Path(config.volumes_root, claim_of(config.run_uri) or "", CACHE)
    sources = Sources(Request(claim="", cache="", writer="", inputs=[], credentials=settings.credentials))
    return {each.place: StreamedFiles(each, sources, cache, config.volumes_root) for each in found if each.streamed}


class StreamedFiles:
    """Of a URI, under the paths that copies would have (`data.files.Streamed`)."""

    def __init__(self, told: InputFetched, sources: Sources, cache: Path, volumes_root: str) -> None:
        self._uri, remote = shown(told.uri), parse(told.uri)
        self._source, self._remote = sources, remote.at(told.revision)
        listing = Listings.validate_json(listing_file(cache, remote, told.revision).read_bytes())
        top = Path(local_path(told.place, volumes_root).removesuffix(remote.path))
        self._files = {top / file.path: file for file in listing.files}
        self.paths = tuple(sorted(self._files))

    def size(self, path: Path) -> int:
        return self._files[path].size

    def mark(self, path: Path) -> str:
        return self._files[path].etag or ""

    def open(self, path: Path) -> BinaryIO:
        source = cast(Ranges, self._source.of(self._remote))
        return cast(BinaryIO, RemoteStream(source, self._remote, self._files[path], self._uri))


class RemoteStream(io.RawIOBase):
    """A file's bytes from any place on, by requests that grow while it is read on; one block is held at a time."""

    def __init__(self, source: Ranges, remote: Remote, file: RemoteFile, uri: str, sleep: Sleep = time.sleep) -> None:
        self._source, self._remote, self._file, self._uri, self._sleep = source, remote, file, uri, sleep
        self._at = self._stop = 0
        self._ahead = LEAST
        self._blocks: Iterator[bytes] | None = None
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        to = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        if 0 <= to - self._at <= len(self._held):
            self._held = self._held[to - self._at :]
        else:
            self._drop()
            self._ahead = 0
        self._at = to
        return to

    def read(self, size: int | None = -1) -> bytes:
        """As many as were asked for, but at the end. Raises DataError for a file that has changed, StorageError."""
        left = max(0, self._file.size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        parts: list[memoryview] = []
        while wanted:
            parts.append(self._some(wanted))
            wanted -= len(parts[-1])
        return b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        self._drop()
        super().close()

    def _some(self, most: int) -> memoryview:
        failures = 0
        while not self._held:
            try:
                self._held = memoryview(self._receive(most))
            except ChangedError as error:
                raise DataError(
                    f"{self._uri}: {self._file.path} is not what was listed: {error}; name files that nobody writes "
                    "to, in a new LLMTraining"
                ) from error
            except TransientError as error:
                self._drop()
                failures += 1
                if failures == TRIES:
                    raise StorageError(f"{self._uri} can't be read at this moment: {error}") from error
                self._sleep(pause(failures, error.wait))
        found, self._held = self._held[:most], self._held[most:]
        self._at += len(found)
        return found

    def _receive(self, wanted: int) -> bytes:
        """The next block, by the request under way or a new one."""
        if self._blocks is None:
            length = max(wanted, self._ahead)
            self._stop, self._ahead = min(self._file.size, self._at + length), min(MOST, max(LEAST, 2 * length))
            self._blocks = self._source.read(self._remote, self._file, self._at, self._stop)
        block = next(self._blocks, b"")
        if self._at + len(block) > self._file.size:
            raise ChangedError(f"it is longer than the {self._file.size} bytes that were listed")
        if not block:
            self._drop()
            if self._at < self._stop:
                raise TransientError(f"the server closed at {self._at} of {self._file.size} bytes")
        return block

    def _drop(self) -> None:
        if self._blocks is not None and hasattr(self._blocks, "close"):
            self._blocks.close()
        self._blocks, self._held = None, memoryview(b"")
