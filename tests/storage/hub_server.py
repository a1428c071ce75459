"""A hub that speaks Hugging Face's protocol as far as huggingface-hub asks for it: revisions, tokens, gated and private
repositories, large files on a second host, range requests; and the faults of a network, one at a time.

What is written goes by it too (hub_writes.py): repositories that are made, large files by LFS, commits.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.storage.hub_writes import answer

LARGE = 4096  # bytes from which a file lies on the second host, as LFS's do


@dataclass
class Repository:
    files: dict[str, bytes]
    kind: str = "models"  # or datasets
    token: str | None = None  # that may read it; None: everybody
    gated: bool = False
    license: str = "apache-2.0"
    private: bool = False
    branch: str = "main"
    before: dict[str, dict[str, bytes]] = field(default_factory=dict)  # files by commits that are no longer the newest

    def at(self, revision: str) -> dict[str, bytes] | None:
        return self.files if revision in (self.branch, self.commit) else self.before.get(revision)

    @property
    def commit(self) -> str:
        listed = json.dumps(sorted((path, blob(data)) for path, data in self.files.items()))
        return hashlib.sha1(listed.encode()).hexdigest()


@dataclass
class Fault:
    """What befalls the next `count` answers with a file's bytes."""

    kind: str  # close, stall, 429, 500
    after: int = 0  # bytes that come before it
    count: int = 1
    file: str = ""  # whose name ends so


@dataclass
class Hub:
    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    served: list[tuple[str, int, int]] = field(default_factory=list)  # path, first byte, bytes written
    asked: list[str] = field(default_factory=list)  # methods and paths
    url: str = ""
    second: str = ""
    writers: dict[str, str] = field(default_factory=dict)  # organisations by the tokens that may write to them
    objects: dict[str, bytes] = field(default_factory=dict)  # large files that were sent, by their sha256
    sent: list[tuple[str, int]] = field(default_factory=list)  # sha256 of what was sent whole, and its bytes
    refusals: dict[str, int] = field(default_factory=dict)  # statuses of the next answer to what is written, by step

    def fault(self, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.count and path.endswith(fault.file):
                fault.count -= 1
                return fault
        return None


@cache
def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@cache
def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sibling(path: str, data: bytes) -> dict[str, Any]:
    """A file as a repository's info tells it."""
    told: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": blob(data)}
    lfs = {"sha256": sha256_of(data), "size": len(data), "pointerSize": 130}
    return {**told, "lfs": lfs} if len(data) >= LARGE else told


def listed(path: str, data: bytes) -> dict[str, Any]:
    """A file as a repository's tree tells it."""
    told: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob(data)}
    lfs = {"oid": sha256_of(data), "size": len(data), "pointerSize": 130}
    return {**told, "lfs": lfs} if len(data) >= LARGE else told


class HubServer(ThreadingHTTPServer):
    """On one port; each request has a thread of its own."""

    daemon_threads = True

    def __init__(self, host: str, hub: Hub) -> None:
        super().__init__((host, 0), Handler)
        self.hub = hub


class Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        self.read()

    def do_POST(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        answer(self.hub, self)

    def do_PUT(self) -> None:
        self.do_POST()

    def read(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/blobs/"):
            self.content(path.removeprefix("/blobs/"))
        elif path.startswith("/api/"):
            self.info(path.split("/"))
        else:
            self.resolve(path.strip("/"))

    def info(self, parts: list[str]) -> None:
        """A repository and its files; below /tree/ the files alone, as `hf download` asks for them."""
        kind, name, revision = parts[2], "/".join(parts[3:5]), "/".join(parts[6:]) or "main"
        repository = self.readable(kind, name, revision)
        if repository is None:
            return
        files = repository.at(revision) or {}
        if "tree" in parts:
            self.answer([listed(path, data) for path, data in files.items()])
            return
        commit = repository.commit if revision == repository.branch else revision
        self.answer({"id": name, "sha": commit, "siblings": [sibling(path, data) for path, data in files.items()],
                     "cardData": {"license": repository.license}, "tags": [], "private": False, "downloads": 0,
                     "likes": 0, "gated": False})  # fmt: skip

    def resolve(self, path: str) -> None:
        kind = "datasets" if path.startswith("datasets/") else "models"
        name, _, rest = path.removeprefix("datasets/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        repository = self.readable(kind, name, revision)
        if repository is None:
            return
        data = (repository.at(revision) or {}).get(file)
        if data is None:
            self.refuse(404, "EntryNotFound")
            return
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{blob(data)}"'}
        if len(data) >= LARGE:
            headers |= {
                "X-Linked-Etag": f'"{sha256_of(data)}"',
                "X-Linked-Size": str(len(data)),
                "Location": f"{self.hub.second}/blobs/{kind}/{name}/{file}",
            }
            self.send(302, b"", headers)
        else:
            self.ranged(data, headers, f"{name}/{file}")

    def content(self, path: str) -> None:
        """On the second host, which must never see a token."""
        if self.headers.get("Authorization"):
            self.refuse(400, "TokenOnAnotherHost")
            return
        _, organisation, name, file = path.split("/", 3)
        data = self.hub.repositories[f"{organisation}/{name}"].files[file]
        self.ranged(data, {"ETag": f'"{sha256_of(data)}"'}, f"{organisation}/{name}/{file}")

    def ranged(self, data: bytes, headers: dict[str, str], path: str) -> None:
        start = 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        fault = self.hub.fault(path) if self.command == "GET" and data[start:] else None
        if fault and fault.kind in ("429", "500"):
            self.send(int(fault.kind), b"", {"Retry-After": "1"} if fault.kind == "429" else {})
            return
        self.send_response(206 if wanted else 200)
        for name, value in {**headers, "Content-Length": str(len(data) - start), "Accept-Ranges": "bytes"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        end = min(len(data), start + fault.after) if fault else len(data)
        with suppress(OSError):
            self.wfile.write(data[start:end])
            self.hub.served.append((path, start, end - start))
        if fault and fault.kind == "stall":
            self.wfile.flush()
            time.sleep(60)
        if fault:
            self.close_connection = True

    def readable(self, kind: str, name: str, revision: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        if repository is None or repository.kind != kind:
            self.refuse(404 if token else 401, "RepoNotFound")
        elif repository.gated and token != repository.token:
            self.refuse(403 if token else 401, "GatedRepo")
        elif repository.token and token != repository.token:
            self.refuse(404 if token else 401, "RepoNotFound")
        elif repository.at(revision) is None:
            self.refuse(404, "RevisionNotFound")
        else:
            return repository
        return None

    def refuse(self, status: int, code: str) -> None:
        self.send(status, b'{"error":"refused"}', {"X-Error-Code": code, "X-Error-Message": code})

    def answer(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Hub]:
    """On two ports; on loopback under two names."""
    hub = Hub()
    servers = [HubServer(host, hub) for _ in range(2)]
    ports = [server.server_address[1] for server in servers]
    other = "localhost" if host == "127.0.0.1" else host  # a client tells hosts by name and port
    hub.url, hub.second = f"http://{host}:{ports[0]}", f"http://{other}:{ports[1]}"
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
