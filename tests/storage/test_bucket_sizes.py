"""What `plan` says of a bucket, by a real S3 server that checks each signature."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_operator import bucket_sizes
from llm_operator.remote_sizes import request, size_of
from tests.storage.s3_server import serving, store


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with serving(tmp_path_factory.mktemp("s3")) as values:
        for name in ("ja/a b+.jsonl", "ja/日本 & 語.jsonl", "ja/c.txt", "model/config.json", "model/model.safetensors"):
            store(values).put(name, b"x" * 1000)
        yield values


@pytest.fixture(autouse=True)
def environment(keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.crt").write_text(keys["ca.crt"])
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.crt"))
    for name, value in keys.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)


def test_what_a_uri_names() -> None:
    assert size_of("s3://corpora/ja/*.jsonl", "data", request) == "2 KB in 2 files"
    assert size_of("s3://corpora/ja", "data", request) == "3 KB in 3 files"
    assert size_of("s3://corpora/model", "tokenizer", request) == "1 KB in 1 file"
    assert size_of("s3://corpora/model", "model", request) == "2 KB in 2 files"
    assert size_of("s3://corpora/none", "data", request) == "no such file"


def test_in_pages(keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1001):
        store(keys).put(f"many/{number:04}.txt", b"1")
    assert size_of("s3://corpora/many", "data", request) == "1 KB in 1001 files"
    monkeypatch.setattr(bucket_sizes, "MOST_PAGES", 1)
    assert size_of("s3://corpora/many", "data", request) == "at least 1 KB in 1000 files"


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    said = size_of("s3://corpora/ja", "data", request)
    assert said.startswith("not known, it answers 403; look at AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    assert size_of("s3://corpora/ja", "data", request) == "not known from here: ValueError"
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "not asked without AWS_SECRET_ACCESS_KEY here" in size_of("s3://corpora/ja", "data", request)
