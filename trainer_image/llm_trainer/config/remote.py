"""URIs of what lies elsewhere: hf://ORG/NAME, hf://datasets/ORG/NAME/PATH, s3://BUCKET/PATH, https://HOST/PATH. Pure.

Data preparation fetches it into a cache on the claim of the storage (`storage/`); from there on it is a pvc:// URI, so
that no other pod needs a network or a credential.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

from pydantic import Field

from llm_trainer.config.base import Settings

REMOTE = ("hf", "s3", "https")
CACHE = ".fetched"  # a folder of the storage's claim, shared by all trainings on it
FETCH_VARIABLE = "LLM_FETCH"  # of a pod that fetches for a serving: a ModelFetch
# Of a process that fetches: a hub's client may ask its hub, and keeps nothing in the pod's memory or scratch space.
FETCH_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_XET_CHUNK_CACHE_SIZE_BYTES": "0",
}
GLOB = re.compile(r"[*?\[]")
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class Credentials(Settings):
    """A Secret for one hub, bucket or server. Only the pod that fetches mounts it."""

    secret_name: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253, description="Of the same namespace."
    )
    target: str = Field(
        alias="for",
        pattern=r"^(hf|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]|https://[^\s/@]+)$",
        max_length=261,
        description="hf, s3://BUCKET or https://HOST.",
    )


@dataclass(frozen=True)
class Remote:
    """A remote URI in its parts. `path` has no slash at its ends and may be a glob; empty for the whole."""

    scheme: Literal["hf", "s3", "https"]
    authority: str  # a repository, a bucket, a host
    path: str
    revision: str = "main"  # asked for, of a hub
    datasets: bool = False  # of a hub: the repository is one of data
    query: str = ""  # of https

    @property
    def target(self) -> str:
        """As credentials name it."""
        return "hf" if self.scheme == "hf" else f"{self.scheme}://{self.authority}"

    @property
    def is_glob(self) -> bool:
        return bool(GLOB.search(self.path))

    @property
    def prefix(self) -> str:
        """The part of the path before a glob, up to a slash or with it; all of it if there is no glob."""
        found = GLOB.search(self.path)
        return self.path if found is None else self.path[: found.start()].rpartition("/")[0]

    def at(self, revision: str) -> Remote:
        """Held to a revision, which of these a hub alone knows."""
        return replace(self, revision=revision)

    def folder(self, revision: str) -> str:
        """Where what the URI names lies at a revision, below the cache. Raises as `place`."""
        return f"{self.place(revision)}/{self.path}".rstrip("/")

    def place(self, revision: str) -> str:
        """The folder of a revision of it, below the cache. Raises ValueError for a revision that is no name."""
        if not REVISION.fullmatch(revision) or ".." in revision:
            raise ValueError(f"{revision!r} is no revision")
        kind = ("datasets",) if self.datasets else ("models",) if self.scheme == "hf" else ()
        return PurePosixPath(self.scheme, *kind, quote(self.authority, safe="/"), revision).as_posix()


def is_remote(uri: str) -> bool:
    return uri.partition("://")[0] in REMOTE


def shown(uri: str) -> str:
    """Without a query, which may hold a signature; elsewhere ? is a sign of globs."""
    return uri.partition("?")[0] if uri.startswith("http") else uri


def parse(uri: str) -> Remote:
    """Raises ValueError, which names the URI and what to write, for one that names nothing that could be fetched."""
    scheme, _, rest = uri.partition("://")
    if any(ord(sign) < ord(" ") or ord(sign) == 127 for sign in uri):
        raise ValueError(f"{shown(uri)!r} has control characters; remove them")
    match scheme:
        case "hf":
            return _hub(uri, rest)
        case "s3":
            bucket, _, key = rest.partition("/")
            _refuse_climbing(uri, key)
            if not BUCKET.fullmatch(bucket):
                raise ValueError(f"{uri!r} names no bucket; write s3://BUCKET/PATH")
            if not key.strip("/"):
                raise ValueError(f"{uri!r} names a whole bucket; write s3://BUCKET/PATH")
            return Remote("s3", bucket, key.strip("/"))
        case "https":
            return _web(uri)
        case _:
            raise ValueError(f"{uri!r} is none of pvc://, hf://, s3:// and https://")


def _hub(uri: str, rest: str) -> Remote:
    datasets = rest.startswith("datasets/")
    shape = "hf://datasets/ORG/NAME[@REVISION]/PATH" if datasets else "hf://ORG/NAME[@REVISION][/PATH]"
    parts = rest.removeprefix("datasets/").strip("/").split("/")
    if len(parts) < 2:
        raise ValueError(f"{uri!r} names no repository; write {shape}")
    name, _, revision = parts[1].partition("@")
    repository, path = f"{parts[0]}/{name}", "/".join(parts[2:])
    if not REPOSITORY.fullmatch(repository):
        raise ValueError(f"{uri!r} names no repository; write {shape}")
    if "@" in parts[1] and not REVISION.fullmatch(revision):
        raise ValueError(f"{uri!r}: {revision!r} is no branch, tag or commit; a branch with a slash has no place here")
    _refuse_climbing(uri, path)
    return Remote("hf", repository, path, revision or "main", datasets)


def _web(uri: str) -> Remote:
    try:
        parts = urlsplit(uri)
        host = parts.hostname
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{shown(uri)!r} is no URL: {error}") from error
    if "@" in parts.netloc:
        raise ValueError("an https:// URI must not hold a user or a password; put them into a Secret of credentials")
    path = unquote(parts.path).strip("/")
    _refuse_climbing(uri, path)
    if not host or not path or parts.path.endswith("/"):
        raise ValueError(f"{shown(uri)!r} names no file; write https://HOST/PATH/FILE")
    if GLOB.search(path):
        raise ValueError(f"{shown(uri)!r} is a glob, and a server lists no files; name each file")
    return Remote("https", f"{host}:{port}" if port else host, path, query=parts.query)


def _refuse_climbing(uri: str, path: str) -> None:
    if ".." in path.split("/") or "" in path.strip("/").split("/")[1:]:
        raise ValueError(f"{shown(uri)!r} must not contain '..' or an empty part of a path")


def replaced(text: str, places: Mapping[str, str]) -> str:
    """A configuration as JSON, in which the place of each remote URI stands for it."""

    def of(value: Any) -> Any:
        if isinstance(value, str):
            return places.get(value, value)
        if isinstance(value, dict):
            return {key: of(each) for key, each in value.items()}
        return [of(each) for each in value] if isinstance(value, list) else value

    return json.dumps(of(json.loads(text)))
