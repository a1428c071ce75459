from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm_trainer.config import DatasetCheck
from llm_trainer.data import readers
from llm_trainer.data.files import SUFFIXES, find_files
from llm_trainer.data.rows import read_rows
from llm_trainer.data.sources import read_documents
from llm_trainer.runtime.errors import DataError

from .conftest import WriteLines


def read(volumes: Path, uri: str, text_field: str = "text") -> list[tuple[str | None, str]]:
    files = find_files(uri, "spec.data.sources[0].uri", str(volumes), SUFFIXES)
    return [(document.text, str(document.place)) for document in read_documents(files, text_field)]


def test_text_files_are_a_document_each_in_the_order_of_their_paths(volumes: Path) -> None:
    for name in ("b", "a", "sub/c"):
        path = volumes / "corpus" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"text {name}\n")
    assert read(volumes, "pvc://corpus/**/*.txt") == [
        ("text a\n", "pvc://corpus/a.txt"),
        ("text b\n", "pvc://corpus/b.txt"),
        ("text sub/c\n", "pvc://corpus/sub/c.txt"),
    ]


def test_jsonl_lines_are_documents_and_blank_lines_are_not(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("a.jsonl", ["\ufeff" + '{"text": "いろは"}', "", {"body": "x", "text": "b"}])
    assert read(volumes, "pvc://corpus/a.jsonl") == [
        ("いろは", "pvc://corpus/a.jsonl, line 1"),
        ("b", "pvc://corpus/a.jsonl, line 3"),
    ]


def test_compressed_files_are_read(volumes: Path) -> None:
    (volumes / "corpus/a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n'))
    assert [text for text, _ in read(volumes, "pvc://corpus/*.jsonl.gz")] == ["a"]


def test_parquet_rows_are_documents(volumes: Path) -> None:
    pq.write_table(pa.table({"body": ["a", "ろ"], "id": [1, 2]}), volumes / "corpus/a.parquet")
    assert read(volumes, "pvc://corpus/a.parquet", "body") == [
        ("a", "pvc://corpus/a.parquet, row 1"),
        ("ろ", "pvc://corpus/a.parquet, row 2"),
    ]


def test_parquet_strings_may_be_dictionary_encoded_or_not_utf8(volumes: Path) -> None:
    table = pa.table({"text": pa.array(["a", "b", "a"]).dictionary_encode()})
    pq.write_table(table, volumes / "corpus/a.parquet")
    broken = pa.array([b"ok", b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": broken}), volumes / "corpus/b.parquet")
    assert [text for text, _ in read(volumes, "pvc://corpus/*.parquet")] == ["a", "b", "a", "ok", None]


def test_what_is_not_utf8_has_no_text(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("a.jsonl", ['{"text": "語"}'.encode("shift_jis"), r'{"text": "half a pair \ud800"}', {"text": "ok"}])
    (volumes / "corpus/b.txt").write_bytes("語".encode("euc_jp"))
    assert [text for text, _ in read(volumes, "pvc://corpus/a.jsonl")] == [None, None, "ok"]
    assert read(volumes, "pvc://corpus/b.txt") == [(None, "pvc://corpus/b.txt")]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("pvc://corpus/*.jsonl", "spec.data.sources[0].uri: no file matches pvc://corpus/*.jsonl"),
        (
            "pvc://corpus/sub",
            "pvc://corpus/sub is a folder. Name the files in it, for example pvc://corpus/sub/*.jsonl",
        ),
        ("pvc://corpus/*.pdf", "pvc://corpus/a.pdf ends with none of .txt, .jsonl, .json, .parquet, .arrow"),
        ("s3://corpus/a.txt", "'s3://corpus/a.txt' is not a pvc://CLAIM/PATH URI"),
    ],
)
def test_a_uri_that_can_not_be_read_is_named(volumes: Path, uri: str, message: str) -> None:
    (volumes / "corpus/sub").mkdir()
    (volumes / "corpus/a.pdf").touch()
    with pytest.raises(DataError) as error:
        read(volumes, uri)
    assert message in str(error.value)
    assert str(error.value).startswith("spec.data.sources[0].uri: ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', "pvc://corpus/a.jsonl, line 2 is not JSON: "),
        ('["a"]', "pvc://corpus/a.jsonl, line 2 must hold a JSON object, not list"),
        (
            '{"body": "a", "id": 1}',
            "pvc://corpus/a.jsonl, line 2 needs a string 'text' (textField) and has only 'body', 'id'",
        ),
        ('{"text": 7}', "pvc://corpus/a.jsonl, line 2 needs a string 'text' (textField) and has a int"),
    ],
)
def test_a_bad_line_is_named(volumes: Path, write_lines: WriteLines, line: str, message: str) -> None:
    write_lines("a.jsonl", [{"text": "fine"}, line])
    with pytest.raises(DataError) as error:
        read(volumes, "pvc://corpus/a.jsonl")
    assert message in str(error.value)


def test_bad_parquet_is_named(volumes: Path) -> None:
    (volumes / "corpus/a.parquet").write_bytes(b"PAR1 is not enough")
    pq.write_table(pa.table({"body": ["a"]}), volumes / "corpus/b.parquet")
    pq.write_table(pa.table({"text": [1]}), volumes / "corpus/c.parquet")
    pq.write_table(pa.table({"text": ["a", None]}), volumes / "corpus/d.parquet")
    for name, message in {
        "a": "pvc://corpus/a.parquet can't be read: Parquet magic bytes not found",
        "b": "pvc://corpus/b.parquet has no column 'text' (textField), only body",
        "c": "pvc://corpus/c.parquet has a column 'text' (textField) of int64, and it must hold strings",
        "d": "pvc://corpus/d.parquet, row 2 needs a string 'text' (textField) and has null",
    }.items():
        with pytest.raises(DataError) as error:
            read(volumes, f"pvc://corpus/{name}.parquet")
        assert message in str(error.value)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_a_document_that_is_too_long_is_refused_by_its_place(
    name: str, volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "DOCUMENT_BYTES", 1 << 20)
    text = "x" * (2 << 20)
    line = f'{{"text": "{text}"}}\n'.encode()
    file = volumes / "corpus" / name
    if name == "a.parquet":
        pq.write_table(pa.table({"text": ["short", text]}), file)
    else:
        file.write_bytes({"a.txt": text.encode(), "a.jsonl": line, "a.jsonl.gz": gzip.compress(line)}[name])
    with pytest.raises(DataError, match=f"spec.data.sources.0..uri: pvc://corpus/{name}.* is longer than 1 MiB"):
        read(volumes, f"pvc://corpus/{name}")


@pytest.mark.parametrize("line", [b'{"text": "xx"}\n', b"\n"], ids=["documents", "nothing"])
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt.gz"])
def test_a_file_that_unpacks_to_what_no_text_does_is_refused(
    line: bytes, name: str, volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "UNPACKED_BYTES", 1 << 20)
    (volumes / "corpus" / name).write_bytes(gzip.compress(line * ((2 << 20) // len(line))))
    with pytest.raises(DataError, match=f"pvc://corpus/{name}.* over 200 times as many"):
        for _ in read_documents(find_files(f"pvc://corpus/{name}", "data", str(volumes), SUFFIXES), "text"):
            pass


def test_a_row_that_unpacks_to_what_no_text_does_is_refused(volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "UNPACKED_BYTES", 1 << 20)
    rows = b'{"prompt": "p", "completion": "c"}\n' * (64 << 10)
    (volumes / "corpus/a.jsonl.gz").write_bytes(gzip.compress(rows))
    check = DatasetCheck(field="dataset.uri", uri="pvc://corpus/a.jsonl.gz", any_of_columns=[["prompt", "completion"]])
    with pytest.raises(DataError, match=r"dataset.uri: pvc://corpus/a.jsonl.gz, line .* over 200 times as many"):
        for _ in read_rows(check, str(volumes)):
            pass


def test_a_parquet_file_that_unpacks_to_what_no_text_does_is_refused(
    volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "UNPACKED_BYTES", 1 << 20)
    table = pa.table({"text": ["x" * 100_000 + str(number) for number in range(100)]})
    pq.write_table(table, volumes / "corpus/a.parquet", compression="zstd", compression_level=19, use_dictionary=False)
    with pytest.raises(DataError, match=r"corpus/a.parquet has .* and a row group of"):
        read(volumes, "pvc://corpus/a.parquet")


@pytest.mark.parametrize("line", ["[" * 100_000, '{"a":' * 100_000, f'{{"text": {"9" * 5000}}}'])
def test_json_that_python_can_not_read_is_told_by_its_line(line: str, volumes: Path, write_lines: WriteLines) -> None:
    write_lines("a.jsonl", [{"text": "a"}, line])
    with pytest.raises(DataError, match=r"pvc://corpus/a.jsonl, line 2 is"):
        read(volumes, "pvc://corpus/a.jsonl")


def test_a_link_that_leads_out_of_its_claim_is_refused(volumes: Path) -> None:
    (volumes / "secrets").mkdir()
    (volumes / "secrets/a.txt").write_text("secret")
    (volumes / "secrets/sub").mkdir()
    (volumes / "secrets/sub/b.txt").write_text("secret")
    for target, link in (("../secrets/a.txt", "a.txt"), ("/etc/hostname", "b.txt"), ("../secrets/sub", "sub")):
        (volumes / "corpus" / link).symlink_to(target)
        uri = f"pvc://corpus/{link}" if link != "sub" else "pvc://corpus/sub/*.txt"
        with pytest.raises(DataError, match="leads out of the claim corpus"):
            read(volumes, uri)


def test_a_link_inside_its_claim_is_followed(volumes: Path) -> None:
    (volumes / "corpus/real.txt").write_text("text")
    (volumes / "corpus/link.txt").symlink_to("real.txt")
    assert [text for text, _ in read(volumes, "pvc://corpus/link.txt")] == ["text"]
