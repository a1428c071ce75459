"""Files of a bucket, by a real S3 server: versitygw on a folder, with keys and TLS of an authority of its own."""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar
from unittest.mock import MagicMock
from xml.sax.saxutils import escape

import pytest

from llm_trainer.config import CACHE, RemoteInput
from llm_trainer.runtime.errors import DataError, NoSpaceError
from llm_trainer.storage.bucket import Bucket
from llm_trainer.storage.cache import Place, fetch
from llm_trainer.storage.credentials import Credential
from llm_trainer.storage.ranges import COMMIT_BYTES
from llm_trainer.storage.remote_files import ChangedError, TransientError
from tests.storage.s3_server import serving, store

BIG = random.Random(0).randbytes(1000) * 40_000  # 40 MB
FILES = {
    "ja/a.jsonl": b"1", "ja/x/b.jsonl": b"22", "ja/c.txt": b"c", "jab/d.jsonl": b"d", "empty.jsonl": b"",
    "model/config.json": b"{}", "model/model.safetensors": BIG, "model/pytorch_model.bin": b"x",
}  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of a server that runs: what a Secret for its bucket `corpora` holds."""
    with serving(tmp_path_factory.mktemp("s3")) as values:
        for name, content in FILES.items():
            store(values).put(name, content)
        yield values


def get(keys: dict[str, str], cache: Path, path: str, use: str = "data", bucket: str = "corpora") -> Place:
    source = Bucket(bucket, Credential(f"s3://{bucket}", "store", keys))
    wanted = RemoteInput.model_validate({"field": "field", "uri": f"s3://{bucket}/{path}", "use": use})
    return fetch(wanted, source, cache, MagicMock())


@pytest.mark.parametrize(
    ("path", "use", "found"),
    [
        ("ja/**/*.jsonl", "data", ["ja/a.jsonl", "ja/x/b.jsonl"]),
        ("ja/*.jsonl", "data", ["ja/a.jsonl"]),
        ("ja/a.jsonl", "data", ["ja/a.jsonl"]),
        ("empty.jsonl", "data", ["empty.jsonl"]),
        ("ja", "data", ["ja/a.jsonl", "ja/c.txt", "ja/x/b.jsonl"]),
        ("model", "model", ["model/config.json", "model/model.safetensors"]),
        ("model/", "tokenizer", ["model/config.json"]),
    ],
)
def test_what_a_uri_names(path: str, use: str, found: list[str], keys: dict[str, str], tmp_path: Path) -> None:
    place = get(keys, tmp_path / CACHE, path, use)
    there = {file.relative_to(place.folder).as_posix(): file for file in place.folder.rglob("*") if file.is_file()}
    assert sorted(there) == found
    assert all(file.read_bytes() == FILES[name] for name, file in there.items())


def test_it_goes_on_behind_what_was_committed(keys: dict[str, str], tmp_path: Path) -> None:
    source = Bucket("corpora", Credential("s3://corpora", "store", keys))
    remote = MagicMock(authority="corpora", path="model/model.safetensors", is_glob=False, prefix="")
    (file,) = source.listing(remote).files
    part, seen = tmp_path / "part", [0]

    class DiedError(Exception):
        """Stands for a kill."""

    def tell(count: int) -> None:
        seen[0] += count
        if seen[0] > 2 * COMMIT_BYTES:
            raise DiedError

    with pytest.raises(DiedError):
        source.fetch(remote, file, part, tell)
    again: list[int] = []
    source.fetch(remote, file, part, again.append)
    assert again[0] >= COMMIT_BYTES
    assert sum(again) == len(BIG)
    assert part.read_bytes() == BIG


def test_a_file_that_has_changed_is_no_part_of_the_one_before(keys: dict[str, str]) -> None:
    store(keys).put("changing.jsonl", b"a" * 1000)
    source = Bucket("corpora", Credential("s3://corpora", "store", keys))
    remote = MagicMock(authority="corpora", path="changing.jsonl", is_glob=False, prefix="")
    (file,) = source.listing(remote).files
    store(keys).put("changing.jsonl", b"b" * 1000)
    with pytest.raises(ChangedError, match="has changed since it was listed"):
        list(source.read(remote, file, 500))


@pytest.mark.parametrize(
    ("path", "bucket", "changed", "says"),
    [
        ("absent.jsonl", "corpora", {}, "no file matches s3://corpora/absent.jsonl in the bucket corpora"),
        ("absent/*.jsonl", "corpora", {}, "no file matches"),
        ("a.jsonl", "nowhere", {}, "there is no such bucket"),
        ("ja/a.jsonl", "corpora", {"AWS_ACCESS_KEY_ID": "stranger"}, "the key is not accepted"),
        ("ja/a.jsonl", "corpora", {"AWS_SECRET_ACCESS_KEY": "wrong-wrong"}, "the key is not accepted"),
        ("ja/a.jsonl", "corpora", {"ca.crt": ""}, "certificate is not trusted; put its authority's into ca.crt"),
    ],
)
def test_what_is_refused(
    path: str, bucket: str, changed: dict[str, str], says: str, keys: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=says) as told:
        get({**keys, **changed}, tmp_path / CACHE, path, bucket=bucket)
    assert "sesame" not in str(told.value)
    assert "wrong-wrong" not in str(told.value)
    assert not list(tmp_path.rglob("*.lock"))


def test_a_server_that_is_away(keys: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        away = {**keys, "AWS_ENDPOINT_URL": f"https://localhost:{free.getsockname()[1]}"}
    source = Bucket("corpora", Credential("s3://corpora", "store", away))
    with pytest.raises(TransientError, match="can't be reached"):
        source.listing(MagicMock(authority="corpora", path="x", is_glob=True, prefix=""))


def test_no_key_is_shown(keys: dict[str, str]) -> None:
    assert "sesame" not in repr(Credential("s3://corpora", "store", keys))
    assert os.environ.get("AWS_SECRET_ACCESS_KEY") is None


def test_what_has_no_room_is_told_before(keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: MagicMock(total=1 << 30, free=1000))
    get(keys, tmp_path / CACHE, "ja")
    with pytest.raises(NoSpaceError, match="needs 40,000,002 bytes more, and the claim of the cache has 1,000"):
        get(keys, tmp_path / CACHE, "model", "model")
    assert not list((tmp_path / CACHE).rglob("*.safetensors*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: MagicMock(total=0, free=0))  # a file system that can't tell
    get(keys, tmp_path / CACHE, "model", "model")


class Listed(BaseHTTPRequestHandler):
    """Keys that no file system holds, as real buckets do: those of `keys`, each with one byte, but for folders."""

    keys: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        of_all = "list-type" in self.path
        told = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>e</ETag><Size>{int(not key.endswith('/'))}</Size></Contents>"
            for key in self.keys
        )
        body = f"<ListBucketResult>{told}</ListBucketResult>".encode() if of_all else b"1"
        self.send_response(200)
        headers = {"ETag": "e", "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", "Content-Length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def odd() -> Iterator[dict[str, str]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Listed) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        keys = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "sesame", "AWS_REGION": "us-east-1"}
        yield {**keys, "AWS_ENDPOINT_URL": address}
        server.shutdown()


@pytest.mark.parametrize("name", ["a b", "日本", "x+y%20z", "back\\slash", "e\u0301", "~t#?&", "<&>"])
def test_odd_names(name: str, odd: dict[str, str], tmp_path: Path) -> None:
    Listed.keys = [f"c/{name}.jsonl", "c/folder/", "c/folder/b.jsonl"]
    place = get(odd, tmp_path / CACHE, "c/**")
    there = [file.relative_to(place.folder).as_posix() for file in place.folder.rglob("*") if file.is_file()]
    assert sorted(there) == sorted(["c/folder/b.jsonl", f"c/{name}.jsonl"])


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (["c/../up.jsonl"], "can't be a file's path; rename it, or narrow the URI"),
        (["c//double.jsonl"], "can't be a file's path"),
        ([f"c/{'n' * 300}.jsonl"], "can't be a file's name on a claim"),
        (["c/a.jsonl", "c/a.jsonl/b.jsonl"], "can't be a file's name on a claim"),
    ],
)
def test_keys_that_are_no_files(keys: list[str], says: str, odd: dict[str, str], tmp_path: Path) -> None:
    Listed.keys = keys
    with pytest.raises(DataError, match=says):
        get(odd, tmp_path / CACHE, "c/**")
