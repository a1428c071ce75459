"""Files of an https:// server, with a certificate of an authority of its own."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from unittest.mock import MagicMock

import pytest

from llm_trainer.config import CACHE, RemoteInput
from llm_trainer.runtime.errors import DataError
from llm_trainer.storage.cache import fetch
from llm_trainer.storage.credentials import Credential, read_credential
from llm_trainer.storage.web import Web
from tests.cluster.pki import Authority

ROWS = b'{"text": "a row"}\n' * 10_000


class Handler(BaseHTTPRequestHandler):
    """How it behaves is in the path."""

    protocol_version = "HTTP/1.1"
    answers: ClassVar[dict[str, int]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        name = self.path.strip("/").partition("?")[0]
        self.asked.append(self.path)
        count = self.answers[name] = self.answers.get(name, 0) + 1
        if name == "secret.jsonl" and self.headers.get("Authorization") != "Bearer sesame":
            self.answer(403 if self.headers.get("Authorization") else 401, b"")
        elif name == "gone.jsonl":
            self.answer(404, b"")
        elif name == "busy.jsonl" and count % 2:
            self.answer(503, b"", {"Retry-After": "0"})
        elif name == "growing.jsonl":
            self.rows(ROWS + b"x" * count, f'"{count}"')
        else:
            self.rows(ROWS, '"1"', ranges=name != "whole.jsonl")

    def rows(self, content: bytes, etag: str, *, ranges: bool = True) -> None:
        wanted = (self.headers.get("Range") or "").removeprefix("bytes=")
        if not wanted or not ranges:
            self.answer(200, content, {"ETag": etag})
            return
        first, _, last = wanted.partition("-")
        start, end = int(first), int(last) + 1 if last else len(content)
        told = {"ETag": etag, "Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
        self.answer(206, content[start:end], told)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Authority(tmp_path_factory.mktemp("pki"))
    made.create()
    made.issue("server", "/CN=server", "DNS:localhost,IP:127.0.0.1")
    return made.folder


@pytest.fixture(scope="module")
def server(authority: Path) -> Iterator[str]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.crt", authority / "server.key")
    made.socket = context.wrap_socket(made.socket, server_side=True)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"https://localhost:{made.server_address[1]}"
    made.shutdown()
    made.server_close()


def get(uri: str, cache: Path, credential: Credential) -> Path:
    place = fetch(RemoteInput(field="field", uri=uri), Web(credential, "uid"), cache, MagicMock())
    return place.folder / place.within


@pytest.fixture
def credential(server: str, authority: Path, tmp_path: Path) -> Credential:
    folder = tmp_path / "secret"
    folder.mkdir()
    (folder / "TOKEN").write_text("sesame")
    (folder / "ca.crt").write_text((authority / "ca.crt").read_text())
    return read_credential(server, "web", folder)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl?version=2", "secret.jsonl", "busy.jsonl", "whole.jsonl"])
def test_it_comes_whole(name: str, server: str, credential: Credential, tmp_path: Path) -> None:
    file = get(f"{server}/{name}", tmp_path / CACHE, credential)
    assert file.read_bytes() == ROWS
    assert file.name == name.partition("?")[0]


def test_a_file_that_is_there_is_not_fetched_again(server: str, credential: Credential, tmp_path: Path) -> None:
    for _ in range(2):
        get(f"{server}/rows.jsonl", tmp_path / CACHE, credential)
    before = len(Handler.asked)
    get(f"{server}/rows.jsonl", tmp_path / CACHE, credential)
    assert len(Handler.asked) == before + 1, "one byte, to see whether it is another by now"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gone.jsonl", "the server answers 404"),
        ("growing.jsonl", "changes while it is read"),
    ],
)
def test_what_is_refused(name: str, says: str, server: str, credential: Credential, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        get(f"{server}/{name}", tmp_path / CACHE, credential)
    assert not list((tmp_path / CACHE).rglob("*.jsonl"))


def test_no_key_a_wrong_key_and_no_trust(server: str, credential: Credential, tmp_path: Path) -> None:
    ca = {"ca.crt": credential.values["ca.crt"]}
    for given, says in (
        (Credential(server, "web", ca), r"asks who reads \(401\); look at TOKEN of the Secret web"),
        (Credential(server, "web", {**ca, "TOKEN": "wrong"}), r"does not let it be read \(403\)"),
        (Credential(server), "certificate is not trusted; put its authority's into ca.crt of a Secret"),
    ):
        with pytest.raises(DataError, match=says) as told:
            get(f"{server}/secret.jsonl?signature=hidden", tmp_path / CACHE, given)
        assert "wrong" not in str(told.value)
        assert "hidden" not in str(told.value)


def test_a_secret_without_its_key(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    with pytest.raises(DataError, match="the Secret web, for https://h, has no TOKEN; its keys are token"):
        read_credential("https://h", "web", tmp_path)
    (tmp_path / "TOKEN").write_text("x \n")
    with pytest.raises(DataError, match="TOKEN of the Secret web has a blank or a line break at its end"):
        read_credential("https://h", "web", tmp_path)


def test_the_content_is_hashed(server: str, credential: Credential, tmp_path: Path) -> None:
    file = get(f"{server}/rows.jsonl", tmp_path / CACHE, credential)
    manifest = (file.parent.parent / f"{file.parent.name}.json").read_text()
    assert hashlib.sha256(ROWS).hexdigest() in manifest
