"""Files of S3-compatible buckets, by obstore: one library of Rust without dependencies, which lists, signs and retries.

boto3 and s3fs bring botocore's or aiohttp's tree into the image, for the same requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from llm_trainer.config.remote import Remote
from llm_trainer.runtime.errors import DataError
from llm_trainer.storage.credentials import CA, Credential
from llm_trainer.storage.glob import matches
from llm_trainer.storage.ranges import fetch_ranges
from llm_trainer.storage.remote_files import (
    ChangedError,
    Listing,
    RemoteFile,
    Tell,
    TransientError,
    refuse_nothing,
)

BLOCK = 1 << 22
MOST_FILES = 100_000  # of a URI
UNKNOWN_KEY = (  # S3's words, and those of servers that speak it
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "UserNotFound", "401 Unauthorized",
)  # fmt: skip
READ_TIMEOUT = timedelta(seconds=30)  # without a byte


def store_of(bucket: str, credential: Credential, *, checksum: bool = False) -> S3Store:
    """``checksum``: the server compares what it is sent with its sha256."""
    given = credential.get
    config: dict[str, Any] = {
        "access_key_id": given("AWS_ACCESS_KEY_ID"),
        "secret_access_key": given("AWS_SECRET_ACCESS_KEY"),
        "session_token": given("AWS_SESSION_TOKEN"),
        "region": given("AWS_REGION") or given("AWS_DEFAULT_REGION") or (None if credential.secret else "us-east-1"),
        "endpoint": given("AWS_ENDPOINT_URL"),
        "checksum_algorithm": "SHA256" if checksum else None,
    }
    client: dict[str, Any] = {"read_timeout": READ_TIMEOUT, "timeout": timedelta(days=7)}
    if authority := given(CA):
        client["root_certificate"] = authority
    if (given("AWS_ENDPOINT_URL") or "").startswith("http://"):
        client["allow_http"] = True
    return S3Store(
        bucket,
        config={key: value for key, value in config.items() if value},  # type: ignore[arg-type]
        client_options=client,  # type: ignore[arg-type]
        retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=60)},
    )


class Bucket:
    def __init__(self, bucket: str, credential: Credential) -> None:
        self._credential = credential
        self._store = store_of(bucket, credential)

    def listing(self, remote: Remote) -> Listing:
        uri = f"s3://{remote.authority}/{remote.path}"
        found: list[RemoteFile] = []
        try:
            if not remote.is_glob and (one := self._head(remote.path)):
                found = [one]
            else:
                for page in self._store.list(prefix=remote.prefix or None):
                    found += [file for meta in page if _matches(remote, (file := _file(meta)).path)]
                    if len(found) > MOST_FILES:
                        raise DataError(
                            f"{uri} names more than {MOST_FILES:,} files; narrow it, or join them into shards"
                        )
        except (BaseError, OSError) as error:
            raise self._said(error, uri) from error
        files = without_markers(sorted(found, key=lambda file: file.path))
        refuse_nothing(uri, files, f"the bucket {remote.authority}")
        return Listing(_revision(files), files)

    def _head(self, path: str) -> RemoteFile | None:
        """By the headers of a GET, whose refusal has a body that says what is wrong."""
        try:
            return _file(self._store.get(path).meta)
        except FileNotFoundError as error:
            if any(word in str(error) for word in UNKNOWN_KEY):
                raise
            return None

    def read(self, remote: Remote, file: RemoteFile, start: int, stop: int | None = None) -> Iterator[bytes]:
        options: dict[str, Any] = {}
        if start or stop is not None:
            options["range"] = {"offset": start} if stop is None else (start, stop)
        if file.etag:
            options["if_match"] = file.etag
        try:
            answer = self._store.get(file.path, options=options)  # type: ignore[arg-type]
            if answer.meta["size"] != file.size:
                raise ChangedError(f"{file.path} has {answer.meta['size']} bytes, and {file.size} were listed")
            for block in answer.stream(min_chunk_size=BLOCK):
                yield bytes(block)
        except PreconditionError as error:
            raise ChangedError(f"{file.path} has changed since it was listed") from error
        except (BaseError, OSError) as error:
            raise self._said(error, f"s3://{remote.authority}/{file.path}") from error

    def fetch(self, remote: Remote, file: RemoteFile, part: Path, tell: Tell) -> str:
        return fetch_ranges(self, remote, file, part, tell)

    def _said(self, error: Exception, uri: str) -> Exception:
        """What a user is told, without what a request was signed with."""
        text = " ".join(str(error).split())
        advice = self._credential.advice
        if isinstance(error, UnauthenticatedError) or any(word in text for word in UNKNOWN_KEY):
            return DataError(f"{uri}: the key is not accepted; {advice}")
        if isinstance(error, InvalidPathError):
            return DataError(
                f"{uri}: a key there has an empty part, '.', '..' or a control character, and can't be a file's path; "
                "rename it, or narrow the URI to a folder without it"
            )
        if isinstance(error, FileNotFoundError) or "NoSuchBucket" in text:
            what = "there is no such bucket" if "NoSuchBucket" in text else "it is not there"
            return DataError(f"{uri}: {what}; check the name and the endpoint (AWS_ENDPOINT_URL of the Secret)")
        if isinstance(error, PermissionDeniedError) or "403 Forbidden" in text:
            needs = "it needs s3:GetObject and s3:ListBucket"
            return DataError(f"{uri}: the key may not read it (403), {needs}; {advice}")
        if "certificate" in text.lower():
            return DataError(
                f"{uri}: the server's certificate is not trusted; put its authority's into {CA} of the Secret"
            )
        return TransientError(f"{uri}: {type(error).__name__}: the server can't be reached or fails")


def _file(meta: Any) -> RemoteFile:
    return RemoteFile(str(meta["path"]), int(meta["size"]), meta.get("e_tag"))


def without_markers(files: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
    """Without the empty objects that stand for folders, as consoles make them; their last slash isn't told."""
    folders = {str(parent) for file in files for parent in PurePosixPath(file.path).parents}
    return tuple(file for file in files if file.size or (PurePosixPath(file.path).suffix and file.path not in folders))


def _matches(remote: Remote, path: str) -> bool:
    """A glob as on a claim: `*` within a part of the path, `**` through parts; a folder is all that lies below it."""
    if not remote.is_glob:
        return path == remote.path or path.startswith(f"{remote.path}/")
    return matches(path.split("/"), remote.path.split("/"))


def _revision(files: tuple[RemoteFile, ...]) -> str:
    """A bucket has none: it follows from what is listed."""
    text = "\n".join(f"{file.path}\0{file.size}\0{file.etag}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
