"""What people's files are like: every reader reads what was written, or says which file and line it can't."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from llm_trainer.config import DatasetCheck
from llm_trainer.data import readers
from llm_trainer.data.readers import Row
from llm_trainer.data.rows import read_rows
from llm_trainer.runtime.errors import DataError

from .conftest import corpus_of
from .files import FIELD, PAIRS, PLAIN, documents, lines, rows_of, write_table
from .test_corpus import read as read_corpus

# --- how files are written ---


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lines(PLAIN, "\r"), id="cr-only"),
        pytest.param(lines(PLAIN, "\r\n"), id="crlf"),
        pytest.param(b"\xef\xbb\xbf" + lines(PLAIN, "\r\n"), id="bom"),
        pytest.param(b"\xef\xbb\xbf\r\n" + lines(PLAIN, "\r\n"), id="bom-then-blank-line"),
        pytest.param(lines(PLAIN).replace(b"\n", b"\n\n  \n"), id="blank-lines"),
        pytest.param(lines(PLAIN[:1]) + b"\n\xef\xbb\xbf" + lines(PLAIN[1:]), id="two-files-with-boms"),
    ],
)
@pytest.mark.parametrize("block", [3, 1 << 20])
def test_lines_however_they_end(volumes: Path, content: bytes, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "BLOCK", block)
    (volumes / "corpus/a.jsonl").write_bytes(content)
    assert documents(volumes, "pvc://corpus/a.jsonl") == PLAIN


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_lines_are_counted_however_they_end(
    volumes: Path, end: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "BLOCK", block)
    (volumes / "corpus/a.jsonl").write_bytes(f'{{"a": 1}}{end}{end}{{"a": 2}}{end}bad'.encode())
    with pytest.raises(DataError, match="line 4 is not JSON"):
        rows_of(volumes, "pvc://corpus/a.jsonl")


def test_a_byte_order_mark_is_no_text_and_a_nul_is(volumes: Path) -> None:
    (volumes / "corpus/a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    (volumes / "corpus/b.txt").write_bytes(b"before\0after the nul byte\r\n")
    assert documents(volumes, "pvc://corpus/*.txt") == ["one\r\ntwo", "before\0after the nul byte\r\n"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_told_as_such(volumes: Path, encoding: str) -> None:
    (volumes / "corpus/a.txt").write_text("PowerShell wrote this", encoding=encoding)
    data = corpus_of("a.txt")
    with pytest.raises(DataError, match=rf"the first is pvc://corpus/a.txt, which looks like {encoding[:6].upper()}"):
        read_corpus(data, volumes)
    (volumes / "corpus/a.jsonl").write_text('{"prompt": "p", "completion": "c"}\n' * 2, encoding=encoding)
    with pytest.raises(DataError, match=rf"a.jsonl, line 1 looks like {encoding[:6].upper()}; convert the file: iconv"):
        rows_of(volumes, "pvc://corpus/a.jsonl")


def test_an_array_is_told_as_such(volumes: Path) -> None:
    (volumes / "corpus/a.json").write_text(json.dumps([{"prompt": "p"}]))
    with pytest.raises(DataError, match=r"line 1 must hold .* the file is an array; write each element on a line"):
        rows_of(volumes, "pvc://corpus/a.json")
    (volumes / "corpus/a.json").write_text(json.dumps({"prompt": "p"}, indent=1))
    with pytest.raises(DataError, match=r"line 1 is not JSON: .*each line must be a JSON object"):
        rows_of(volumes, "pvc://corpus/a.json")


def test_half_a_character_in_a_row_is_told_by_its_line(volumes: Path) -> None:
    (volumes / "corpus/a.jsonl").write_text('{"prompt": "\\ud83d\\ude00"}\n{"prompt": [{"content": "cut \\ud83d"}]}\n')
    with pytest.raises(DataError, match=r"a.jsonl, line 2 has half a character in 'prompt' \(\\ud83d"):
        rows_of(volumes, "pvc://corpus/a.jsonl")


def test_a_git_lfs_pointer_is_told_as_such(volumes: Path) -> None:
    for name in ("a.txt", "a.jsonl", "a.parquet", "a.jsonl.gz"):
        (volumes / "corpus" / name).write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 988097824\n"
        )
        with pytest.raises(DataError, match=f"pvc://corpus/{name} is a Git LFS pointer"):
            documents(volumes, f"pvc://corpus/{name}")


# --- tables ---

TEXTS = ["いろは", "b", "", "b"]
COLUMNS: dict[str, pa.Array] = {
    "string": pa.array(TEXTS),
    "large_string": pa.array(TEXTS, pa.large_string()),
    "string_view": pa.array(TEXTS, pa.string_view()),
    "binary": pa.array([text.encode() for text in TEXTS], pa.binary()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "fixed": pa.array([b"ab", b"cd"], pa.binary(2)),
}


@pytest.mark.parametrize("kind", list(COLUMNS))
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "stream.arrow"])
def test_texts_of_every_type(volumes: Path, kind: str, name: str) -> None:
    write_table(pa.table({"other": [1] * len(COLUMNS[kind]), "text": COLUMNS[kind]}), volumes / "corpus" / name)
    expected = TEXTS if kind != "fixed" else ["ab", "cd"]
    assert documents(volumes, f"pvc://corpus/{name}") == expected
    assert [row["text"] for _, row in rows_of(volumes, f"pvc://corpus/{name}")] == expected


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl"])
def test_a_text_in_an_object_and_a_name_with_a_dot(volumes: Path, name: str) -> None:
    rows = [{"text": {"body": text, "lang": "en"}, "a.b": text} for text in PLAIN]
    if name == "a.jsonl":
        (volumes / "corpus" / name).write_text("\n".join(map(json.dumps, rows)))
    else:
        write_table(pa.Table.from_pylist(rows), volumes / "corpus" / name)
    assert documents(volumes, f"pvc://corpus/{name}", "text.body") == PLAIN
    assert documents(volumes, f"pvc://corpus/{name}", "a.b") == PLAIN
    with pytest.raises(DataError, match=r"set textField to a field in it, such as text.body"):
        documents(volumes, f"pvc://corpus/{name}")


def broken(texts: list[bytes]) -> pa.Array:
    return pa.array(texts, pa.binary()).view(pa.string())


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_what_is_not_utf8_is_told_by_its_row_and_only_where_it_is_needed(volumes: Path, name: str) -> None:
    good = pa.array(["p"] * 3)
    table = pa.table({"prompt": good, "completion": broken([b"a", b"b", b"R\xc9UNION"]), "note": good})
    write_table(table, volumes / "corpus" / name)
    with pytest.raises(DataError, match=f"pvc://corpus/{name}, row 3 has in 'completion' text that is not UTF-8"):
        rows_of(volumes, f"pvc://corpus/{name}", ["prompt", "completion"])
    write_table(table.rename_columns(["prompt", "note", "completion"]), volumes / "corpus" / name)
    check = DatasetCheck(field=FIELD, uri=f"pvc://corpus/{name}", any_of_columns=PAIRS)
    assert list(read_rows(check, str(volumes))) == [{"prompt": "p", "completion": "p"}] * 3


def test_a_column_that_nobody_reads_is_named(volumes: Path) -> None:
    write_table(pa.table({"prompt": ["p"], "tools": [["t"]]}), volumes / "corpus/a.parquet")
    assert [row for _, row in rows_of(volumes, "pvc://corpus/a.parquet", ["prompt"])] == [
        {"tools": None, "prompt": "p"}
    ]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "stream.arrow"])
def test_a_table_without_the_columns(volumes: Path, name: str) -> None:
    check = DatasetCheck(field=FIELD, uri=f"pvc://corpus/{name}", any_of_columns=PAIRS)
    for columns, found in (
        ({"text": ["t"]}, "text"),
        ({"prompt": ["p"], "completion": [None]}, "prompt, completion .null"),
    ):
        write_table(pa.table(columns), volumes / "corpus" / name)
        with pytest.raises(
            DataError, match=rf"{name}, row 1 needs the columns prompt and completion; it has {found}.?$"
        ):
            list(read_rows(check, str(volumes)))


def test_a_column_lives_if_any_row_has_it(volumes: Path) -> None:
    rows: list[Row] = [{"prompt": "p", "answer": None}, {"prompt": "q"}, {"prompt": "r", "answer": "4"}]
    (volumes / "corpus/a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (volumes / "corpus/a.jsonl.gz").write_bytes(gzip.compress((volumes / "corpus/a.jsonl").read_bytes()))
    for name in ("a.parquet", "a.arrow", "stream.arrow"):
        columns = {key: [row.get(key) for row in rows] for key in ("prompt", "answer")}
        write_table(pa.table(columns), volumes / "corpus" / name)
    for name in ("a.jsonl", "a.jsonl.gz", "a.parquet", "a.arrow", "stream.arrow"):
        check = DatasetCheck(
            field=FIELD, uri=f"pvc://corpus/{name}", any_of_columns=[["prompt"]], optional_columns=["*"]
        )
        assert list(read_rows(check, str(volumes))) == [
            {"prompt": "p"}, {"prompt": "q"}, {"prompt": "r", "answer": "4"}
        ]  # fmt: skip


def test_two_columns_of_one_name(volumes: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    for name in ("a.parquet", "a.arrow"):
        write_table(table, volumes / "corpus" / name)
        with pytest.raises(DataError, match=f"pvc://corpus/{name} has two columns 'text'"):
            documents(volumes, f"pvc://corpus/{name}")
