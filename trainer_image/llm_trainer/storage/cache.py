"""What was fetched, in a folder of the storage's claim that all trainings on it share.

`SCHEME/AUTHORITY/REVISION/` holds the files under their own paths, `REVISION.json` beside it what they are. A file is
whole or not there, and one that the manifest doesn't name isn't used.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ValidationError

from llm_trainer.checkpoint.files import FileRecord, flush_folder, write_durably
from llm_trainer.config import RemoteInput, parse
from llm_trainer.config.remote import Remote, shown
from llm_trainer.runtime.errors import DataError, NoSpaceError, StorageError
from llm_trainer.runtime.removal import remove
from llm_trainer.storage.at_once import at_once
from llm_trainer.storage.lock import held
from llm_trainer.storage.meter import Meter
from llm_trainer.storage.model_files import needed
from llm_trainer.storage.pickled import converted, is_pickled, safetensors_of
from llm_trainer.storage.ranges import refuse_other_content
from llm_trainer.storage.remote_files import ChangedError, Listing, RemoteFile, Source, Tell, TransientError
from llm_trainer.storage.retry import patiently

AT_ONCE = 8  # files
# Of a name that is too long, or of a key below another that is a file here.
NO_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ, errno.ENOTEMPTY)
LISTINGS = 3  # of a source that changes while it is read


class Fetched(BaseModel):
    """The manifest of a revision."""

    uri: str
    revision: str
    license: str = ""
    files: list[FileRecord] = []
    pickled: list[FileRecord] = []  # that were made into safetensors, and are gone


@dataclass(frozen=True)
class Place:
    """Where a URI's files lie: `folder` of the revision, `within` it the URI's own path, which may be a glob."""

    folder: Path
    within: str
    listing: Listing


def manifest_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def read_fetched(folder: Path) -> Fetched | None:
    try:
        return Fetched.model_validate_json(manifest_of(folder).read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def fetch(wanted: RemoteInput, source: Source, cache: Path, meter: Meter) -> Place:
    """Have all files of a URI in the cache.

    Raises DataError, and StorageError where the server fails for so long that another attempt had better begin.
    """
    uri, remote = shown(wanted.uri), parse(wanted.uri)
    for _ in range(LISTINGS):
        try:
            listing = listed(wanted, source)
            meter.listed(listing.bytes)
            return _fetch(wanted, remote, source, listing, cache, meter)
        except ChangedError as error:
            changed = error
            meter.changed()
        except TransientError as error:
            raise StorageError(f"{uri} can't be fetched at this moment: {error}; the next attempt goes on") from error
    raise DataError(f"{uri} changes while it is read: {changed}; name files that nobody writes to, or copy them first")


def listed(wanted: RemoteInput, source: Source) -> Listing:
    """What there is of a URI and is needed of it. Raises DataError, TransientError after some tries."""
    uri, remote, held_to = shown(wanted.uri), parse(wanted.uri), wanted.revision
    if held_to and remote.scheme == "hf":  # which knows its old ones
        remote = replace(remote, revision=held_to)
    listing = needed(uri, patiently(lambda: source.listing(remote)), wanted.use, allow_pickle=wanted.allow_pickle)
    if held_to and listing.revision != held_to:
        raise DataError(
            f"{uri} is no longer what it was at first (revision {held_to}, and now {listing.revision}); restore it, or "
            "follow it by spec.modelCache.refreshIntervalSeconds"
        )
    return listing


def _fetch(wanted: RemoteInput, remote: Remote, source: Source, listing: Listing, cache: Path, meter: Meter) -> Place:
    uri = shown(wanted.uri)
    folder = cache / remote.place(listing.revision)
    place = Place(folder, remote.path, listing)
    if not _missing(folder, listing.files):
        meter.more(listing.bytes)
        return place
    with held(folder.with_name(f"{folder.name}.lock")) as check:
        parts = folder.with_name(f".{folder.name}.parts")
        for directory in (folder, parts):
            directory.mkdir(parents=True, exist_ok=True)
        finished = Finished(parts / "finished.jsonl")
        whole = {record.path: record for record in finished.read() if _is_there(folder, record)}
        missing = [file for file in _missing(folder, listing.files) if file.path not in whole]
        refuse_too_large(wanted, missing, parts)
        meter.more(listing.bytes - sum(file.size for file in missing))
        top = folder.resolve()
        pinned = replace(remote, revision=listing.revision)  # of a hub: what was listed, wherever its branch goes

        def one(file: RemoteFile) -> FileRecord:
            check()
            record = _one(uri, pinned, source, file, top, parts, meter.more)
            finished.add(record)
            return record

        try:
            records = [*whole.values(), *at_once(AT_ONCE, "fetch", one, missing)]
        except ChangedError:  # this revision is no more
            remove(parts)
            if read_fetched(folder) is None:
                remove(folder)
            raise
        check()
        pickles = [record for record in records if is_pickled(record.path)]
        safe = converted(uri, folder, pickles) if pickles else []
        _note(uri, folder, listing, [*(record for record in records if record not in pickles), *safe], pickles)
        for record in pickles:
            (folder / record.path).unlink()
        remove(parts)
    return place


def _one(
    uri: str, remote: Remote, source: Source, file: RemoteFile, folder: Path, parts: Path, tell: Tell
) -> FileRecord:
    target = folder / file.path
    if not target.parent.resolve().is_relative_to(folder) or target.name in ("", "..") or target.is_symlink():
        raise DataError(f"{uri}: the server names a file {file.path!r}, which lies outside of its folder")
    readable = target.name.encode()[-64:].decode(errors="ignore")
    part = parts / f"{hashlib.sha256(file.path.encode()).hexdigest()[:16]}-{readable}"
    sha256 = source.fetch(remote, file, part, tell)
    try:
        refuse_other_content(uri, file, sha256)
    except DataError:
        part.unlink()
        raise
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.rename(target)
    except OSError as error:
        if error.errno not in NO_NAME:
            raise
        raise DataError(
            f"{uri}: {file.path!r} can't be a file's name on a claim ({error.strerror}); rename it there, or narrow "
            "the URI"
        ) from error
    return FileRecord(path=file.path, size=file.size, sha256=sha256)


def _note(
    uri: str, folder: Path, listing: Listing, records: Sequence[FileRecord], pickles: Sequence[FileRecord]
) -> None:
    before = read_fetched(folder)
    files = {record.path: record for record in (before.files if before else [])}
    files |= {record.path: record for record in records}
    flush_folder(folder)
    said = Fetched(
        uri=uri,
        revision=listing.revision,
        license=listing.license,
        files=[files[path] for path in sorted(files)],
        pickled=[*(before.pickled if before else []), *pickles],
    )
    write_durably(manifest_of(folder), json.dumps(said.model_dump(), indent=1) + "\n")


def _missing(folder: Path, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    known = read_fetched(folder)
    if known is None:
        return list(files)
    listed = {record.path: record for record in known.files}
    for record in known.pickled:  # there if its tensors are
        if (made := listed.get(safetensors_of(record.path))) and _is_there(folder, made):
            files = [file for file in files if (file.path, file.size) != (record.path, record.size)]
    return [
        file
        for file in files
        if file.path not in listed or listed[file.path].size != file.size or not _is_there(folder, listed[file.path])
    ]


def _is_there(folder: Path, record: FileRecord) -> bool:
    path = folder / record.path
    return path.is_file() and path.stat().st_size == record.size


class Finished:
    """Files of a revision that are whole before all of them are: an attempt that is killed leaves them to the next."""

    def __init__(self, journal: Path) -> None:
        self._journal, self._lock = journal, threading.Lock()

    def read(self) -> list[FileRecord]:
        """A last line that is cut off is none."""
        lines = self._journal.read_bytes().splitlines() if self._journal.is_file() else []
        found = []
        for line in lines:
            with suppress(ValidationError):
                found.append(FileRecord.model_validate_json(line))
        return found

    def add(self, record: FileRecord) -> None:
        """Once its bytes are flushed."""
        with self._lock, self._journal.open("ab") as stream:
            stream.write(b"\n" + record.model_dump_json().encode())


def refuse_too_large(wanted: RemoteInput, missing: Sequence[RemoteFile], parts: Path) -> None:
    """Raises NoSpaceError before anything comes that would have no room. Parts that are there need none."""
    there = sum(path.stat().st_size for path in parts.iterdir() if path.is_file())
    needed, room = sum(file.size for file in missing) - there, shutil.disk_usage(parts)
    if room.total and needed > room.free:  # some network file systems tell 0 of both
        instead = ", or set stream: true beside the uri" if wanted.field.startswith("spec.data.sources[") else ""
        raise NoSpaceError(
            f"{shown(wanted.uri)} needs {needed:,} bytes more, and the claim of the cache has {room.free:,}; make "
            f"room, or use a larger claim{instead}"
        )
