"""A result into an S3-compatible bucket: its files, each whole or not there, and its manifest last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from llm_trainer.checkpoint.files import MANIFEST, FileRecord
from llm_trainer.config.remote import Remote
from llm_trainer.protocol import PublishedResult
from llm_trainer.runtime.errors import DataError
from llm_trainer.storage.at_once import at_once
from llm_trainer.storage.bucket import UNKNOWN_KEY, store_of
from llm_trainer.storage.credentials import CA, Credential
from llm_trainer.storage.multipart import DIGEST, Multipart, UploadGoneError, key_of
from llm_trainer.storage.publication import (
    MARK,
    Files,
    Mark,
    PublishedManifest,
    Publisher,
    as_json,
    read_mark,
    read_published,
    refuse_others,
)
from llm_trainer.storage.remote_files import TransientError
from llm_trainer.storage.retry import patiently
from llm_trainer.storage.upload_parts import PART, PartsOfFiles

AT_ONCE = 4  # files
NO_ROOM = ("QuotaExceeded", "507 Insufficient Storage", "XMinioStorageFull")
RIGHTS = "s3:PutObject, s3:GetObject, s3:ListBucket, s3:DeleteObject and s3:AbortMultipartUpload"

Found = TypeVar("Found")


class BucketTarget:
    def __init__(self, to: str, remote: Remote, credential: Credential) -> None:
        self._to, self._prefix, self._credential = to, remote.path, credential
        self._store = store_of(remote.authority, credential, checksum=True)
        key = key_of(credential)
        requests = Multipart(remote.authority, credential, key) if key else None
        self._parts = PartsOfFiles(requests, self._prefix, self._asked) if requests else None

    def publish(self, files: Files) -> PublishedResult:
        ours = files.manifest.publication
        there = patiently(lambda: self._there(ours))
        if there is None or there.digest() != ours.digest or self._missing(files):
            self._look_for_parts(files, there)
            mark = patiently(lambda: self._claim(files))
            if there is not None:
                self._remove(MANIFEST)  # from here on nothing is there, until the new one is
            sent = sum(at_once(AT_ONCE, "publish", lambda record: self._file(files, record), files.manifest.files))
            print(f"sent {sent:,} of {files.size:,} bytes; what was there already was not sent again", flush=True)
            for path in mark.replaces:
                self._remove(path)
            if missing := self._missing(files):
                said = f"{missing[0]} is not as it was sent: another writes there; give it a place of its own"
                raise DataError(f"{self._to}: {said}")
            patiently(lambda: self._put(MANIFEST, files.manifest_text))
        self._remove(MARK)
        return PublishedResult(revision=patiently(self._revision), bytes=files.size, files=len(files.manifest.files))

    def _there(self, ours: Publisher) -> PublishedManifest | None:
        """What is there of ours. Raises DataError for another's place."""
        listed = self._listed()
        there = read_published(self._read(MANIFEST)) if MANIFEST in listed else None
        mark = read_mark(self._read(MARK)) if MARK in listed else None
        for known in (there.publication if there else mark, mark or (there.publication if there else None)):
            refuse_others(self._to, ours, known, listed)
        return there

    def _claim(self, files: Files) -> Mark:
        """From here on our mark tells that we write."""
        ours = files.manifest.publication
        before, there = read_mark(self._read(MARK)), read_published(self._read(MANIFEST))
        if before and before.digest == ours.digest:
            return before
        old = (there.paths if there else set()) | set(before.replaces if before else ())
        mark = Mark(**ours.model_dump(), replaces=sorted(old - files.manifest.paths))
        try:
            self._put(MARK, as_json(mark), mode="overwrite" if before else "create")
        except (AlreadyExistsError, PreconditionError):
            raise TransientError(f"{self._to}: another publishes to it at this moment") from None
        except NotSupportedError:
            self._put(MARK, as_json(mark))  # a server without conditions; its rights must keep others away
        return mark

    def _look_for_parts(self, files: Files, there: PublishedManifest | None) -> None:
        """What an earlier try of this result had under way is gone on with, and what one of another had is ended."""
        if self._parts is None:
            return
        self._parts.look()
        mark = patiently(lambda: read_mark(self._read(MARK)))
        if mark is None or mark.digest != files.manifest.publication.digest:
            self._parts.forget(files.manifest.paths | (there.paths if there else set()))

    def _file(self, files: Files, record: FileRecord) -> int:
        """Bytes that were sent."""
        digest, sent = files.digests[record.path], 0
        for _ in range(2):
            if patiently(lambda: self._is_there(record, digest)):
                return sent
            try:
                sent = self._send(files, record, digest)
            except UploadGoneError:  # by another, or it went well and nobody heard
                continue
            print(f"sent {record.path}, {sent:,} of {record.size:,} bytes", flush=True)
            return sent
        raise TransientError(f"{self._to}: the upload of {record.path} was ended by another")

    def _send(self, files: Files, record: FileRecord, digest: str) -> int:
        file = files.folder / record.path
        if self._parts and record.size > PART:
            return self._parts.send(record.path, file, digest)
        patiently(lambda: self._put(record.path, file, digest=digest))
        return record.size

    def _missing(self, files: Files) -> list[str]:
        """Files that aren't there with their length and the digest that came with them; bytes are summed on the way."""

        def missing(record: FileRecord) -> bool:
            return not patiently(lambda: self._is_there(record, files.digests[record.path]))

        records = files.manifest.files
        found = zip(records, at_once(AT_ONCE, "look", missing, records), strict=True)
        return [record.path for record, is_missing in found if is_missing]

    def _revision(self) -> str:
        """The manifest's ETag."""
        try:
            meta = self._store.get(self._key(MANIFEST), options={"head": True}).meta
        except (BaseError, OSError) as error:
            raise self._said(error) from error
        return str(meta.get("e_tag") or "").strip('"')

    # --- requests -----------------------------------------------------------------------------------------------

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}"

    def _asked(self, request: Callable[[], Found]) -> Found:
        def once() -> Found:
            try:
                return request()
            except OSError as error:
                raise self._said(error) from error

        return patiently(once)

    def _listed(self) -> list[str]:
        try:
            found = [str(meta["path"]) for page in self._store.list(prefix=f"{self._prefix}/") for meta in page]
        except (BaseError, OSError) as error:
            raise self._said(error) from error
        return sorted(path.removeprefix(f"{self._prefix}/") for path in found)

    def _read(self, path: str) -> bytes | None:
        try:
            return bytes(self._store.get(self._key(path)).bytes())
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise self._said(error) from error

    def _is_there(self, record: FileRecord, digest: str) -> bool:
        try:
            found = self._store.get(self._key(record.path), options={"head": True})
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as error:
            raise self._said(error) from error
        return found.meta["size"] == record.size and found.attributes.get(DIGEST) == digest

    def _put(self, path: str, content: Any, *, digest: str | None = None, mode: Any = None) -> None:
        given: dict[str, Any] = {"attributes": {DIGEST: digest}} if digest else {}
        if mode:
            given |= {"mode": mode, "use_multipart": False}
        try:
            self._store.put(self._key(path), content, chunk_size=PART, max_concurrency=2, **given)
        except (AlreadyExistsError, PreconditionError, NotSupportedError):
            raise
        except (BaseError, OSError) as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise  # of the volume
            raise self._said(error) from error

    def _remove(self, path: str) -> None:
        def once() -> None:
            try:
                self._store.delete(self._key(path))
            except FileNotFoundError:
                pass
            except (BaseError, OSError) as error:
                raise self._said(error) from error

        patiently(once)

    def _said(self, error: Exception) -> Exception:
        """What a user is told, without what a request was signed with."""
        text, advice = " ".join(str(error).split()), self._credential.advice
        if isinstance(error, UnauthenticatedError) or any(word in text for word in UNKNOWN_KEY):
            return DataError(f"{self._to}: the key is not accepted; {advice}")
        if "NoSuchBucket" in text:
            return DataError(f"{self._to}: there is no such bucket; make it, or check AWS_ENDPOINT_URL of the Secret")
        if isinstance(error, PermissionDeniedError) or "403 Forbidden" in text or "AccessDenied" in text:
            return DataError(f"{self._to}: the key may not write it (403), it needs {RIGHTS}; {advice}")
        if has_no_room(text):
            return DataError(f"{self._to}: the bucket has no room left; make room, or raise its quota")
        if "certificate" in text.lower():
            said = f"the server's certificate is not trusted; put its authority's into {CA} of the Secret"
            return DataError(f"{self._to}: {said}")
        return TransientError(f"{self._to}: {type(error).__name__}: the server can't be reached or fails")


def has_no_room(text: str) -> bool:
    """By what a server says, which has the path of the file in it: one of 507 files is no status."""
    return any(word in text for word in NO_ROOM)
