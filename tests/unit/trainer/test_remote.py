"""URIs of what lies elsewhere: what each means, and what is refused before anything is asked."""

from __future__ import annotations

import json

import pytest

from llm_trainer.config.remote import Remote, parse, replaced, shown
from llm_trainer.runtime.errors import DataError
from llm_trainer.storage.glob import matches
from llm_trainer.storage.model_files import of_model
from llm_trainer.storage.remote_files import RemoteFile


@pytest.mark.parametrize(
    ("uri", "remote", "place"),
    [
        ("hf://Qwen/Qwen3-0.6B", Remote("hf", "Qwen/Qwen3-0.6B", ""), "hf/models/Qwen/Qwen3-0.6B/R"),
        ("hf://a/b@v1.0/sub/", Remote("hf", "a/b", "sub", "v1.0"), "hf/models/a/b/R"),
        ("hf://datasets/a/b/x/*.parquet", Remote("hf", "a/b", "x/*.parquet", datasets=True), "hf/datasets/a/b/R"),
        ("s3://corpora/ja/**/*.jsonl.gz", Remote("s3", "corpora", "ja/**/*.jsonl.gz"), "s3/corpora/R"),
        ("https://h.example:8443/a%20b.txt?sig=1",
         Remote("https", "h.example:8443", "a b.txt", query="sig=1"), "https/h.example%3A8443/R"),
    ],
)  # fmt: skip
def test_what_it_means(uri: str, remote: Remote, place: str) -> None:
    assert parse(uri) == remote
    assert parse(uri).place("R") == place


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("hf://gpt2", "write hf://ORG/NAME"),
        ("hf://a/b@", "is no branch, tag or commit"),
        ("hf://a/b/../c", "must not contain '..'"),
        ("hf://datasets/a", "write hf://datasets/ORG/NAME"),
        ("s3://Bucket/x", "names no bucket"),
        ("s3://corpora", "names a whole bucket"),
        ("s3://corpora/../x", "must not contain '..'"),
        ("https://user:secret@h.example/x.txt", "must not hold a user or a password"),
        ("https://h.example", "names no file"),
        ("https://h.example/folder/", "names no file"),
        ("https://h.example/*.txt", "is a glob"),
        ("https://h.example:x/a.txt", "is no URL"),
        ("https://h.example/%2e%2e/a.txt", "must not contain '..'"),
        ("s3://corpora/a\nb", "control characters"),
        ("gs://corpora/x", "is none of"),
    ],
)
def test_what_is_refused(uri: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("[", r"\[")) as told:
        parse(uri)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("revision", ["..", "../x", "a/b", "", "a" * 200, ".hidden"])
def test_a_revision_is_a_name(revision: str) -> None:
    with pytest.raises(ValueError, match="is no revision"):
        parse("hf://a/b").place(revision)


@pytest.mark.parametrize(
    ("path", "pattern", "fits"),
    [
        ("a/b.jsonl", "a/*.jsonl", True),
        ("a/x/b.jsonl", "a/*.jsonl", False),
        ("a/x/y/b.jsonl", "a/**/*.jsonl", True),
        ("a/b.jsonl", "a/**/*.jsonl", True),
        ("a/.x/b.jsonl", "a/**/*.jsonl", False),
        ("a/.b.jsonl", "a/*.jsonl", False),
        ("a/b", "**", True),
        ("a/b.jsonl", "a/[bc].jsonl", True),
    ],
)
def test_globs_mean_what_they_mean_on_a_claim(path: str, pattern: str, fits: bool) -> None:
    assert matches(path.split("/"), pattern.split("/")) is fits


def files(*names: str) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(name, 1) for name in names)


def names(found: tuple[RemoteFile, ...]) -> list[str]:
    return [file.path for file in found]


def test_of_a_model_only_what_is_read() -> None:
    there = files("config.json", "consolidated.safetensors", "m-1.safetensors", "x.py", "pytorch_model.bin", "o/m.onnx")
    assert names(of_model("hf://a/b", there, weights=True)) == ["config.json", "m-1.safetensors"]
    assert names(of_model("hf://a/b", there, weights=False)) == ["config.json"]
    assert names(of_model("hf://a/b", files("s/config.json", "s/m.safetensors"), weights=True)) == [
        "s/config.json", "s/m.safetensors",
    ]  # fmt: skip
    with pytest.raises(DataError, match="pickled weights alone"):
        of_model("hf://a/b", files("config.json", "pytorch_model.bin"), weights=True)


def test_a_place_stands_for_its_uri_and_for_nothing_else() -> None:
    text = json.dumps({"a": "hf://a/b", "b": ["hf://a/b", "hf://a/bc"], "c": {"d": 1, "hf://a/b": None}})
    assert json.loads(replaced(text, {"hf://a/b": "pvc://m/x"})) == {
        "a": "pvc://m/x", "b": ["pvc://m/x", "hf://a/bc"], "c": {"d": 1, "hf://a/b": None},
    }  # fmt: skip


@pytest.mark.parametrize("path", ["", "a/", "a/*.txt", "../a", "a//b"])
def test_a_signature_is_in_no_message(path: str) -> None:
    with pytest.raises(ValueError, match="https://lan/") as refused:
        parse(f"https://lan/{path}?X-Amz-Signature=sesame")
    assert "sesame" not in str(refused.value)


def test_what_is_shown_of_a_uri() -> None:
    assert shown("https://lan/a?X-Amz-Signature=sesame") == "https://lan/a"
    assert shown("s3://corpora/a?.txt") == "s3://corpora/a?.txt"
