"""What people's files are like: every reader reads what was written, or says which file and line it can't."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_trainer.config import DatasetCheck
from llm_trainer.data import readers
from llm_trainer.data.corpus import find_sources, read_corpus
from llm_trainer.data.files import Files, Place, find_files
from llm_trainer.data.readers import Row, read_rows_of
from llm_trainer.data.rows import SUFFIXES as ROW_SUFFIXES
from llm_trainer.data.rows import read_rows
from llm_trainer.data.sources import SUFFIXES, RawDocument, read_documents
from llm_trainer.runtime.errors import DataError

from .conftest import corpus_of

FIELD = "spec.data.sources[0].uri"
PLAIN = [f"plain document number {number} about apples and pears" for number in range(3)]
PAIRS = [["prompt", "completion"]]


def documents(volumes: Path, uri: str, text_field: str = "text") -> list[str | None]:
    return [raw.text for raw in read_documents(find_files(uri, FIELD, str(volumes), SUFFIXES), text_field)]


def rows_of(volumes: Path, uri: str, columns: list[str] | None = None) -> list[tuple[Place, Row]]:
    files = find_files(uri, FIELD, str(volumes), ROW_SUFFIXES)
    return [row for path in files.paths for row in read_rows_of(files, path, columns)]


def lines(texts: list[str], end: str = "\n") -> bytes:
    return end.join(json.dumps({"text": text}) for text in texts).encode()


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
    (reader,) = read_corpus(data, find_sources(data, str(volumes)))
    with pytest.raises(DataError, match=rf"the first is pvc://corpus/a.txt, which looks like {encoding[:6].upper()}"):
        list(reader.documents())
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


def write_table(table: pa.Table, path: Path) -> None:
    match path.suffix:
        case ".parquet":
            pq.write_table(table, path)
        case ".arrow" if path.stem == "stream":
            with pa.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table)
        case _:
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table)


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


# --- links, folders, what isn't there ---


def test_a_link_that_leads_nowhere_is_refused(volumes: Path) -> None:
    folder = volumes / "corpus"
    (folder / "blobs").mkdir()
    (folder / "blobs/0").write_bytes(lines(PLAIN))
    for number in range(4):
        (folder / f"train-{number}.jsonl").symlink_to(f"blobs/{number}")
    with pytest.raises(DataError, match=r"of 4 files that match .*, 3 are links that lead nowhere: .*train-1.jsonl"):
        documents(volumes, "pvc://corpus/train-*.jsonl")
    (folder / "round.jsonl").symlink_to("round.jsonl")
    with pytest.raises(DataError, match=r"of 1 files that match .*, 1 are links that lead nowhere"):
        documents(volumes, "pvc://corpus/round.jsonl")
    assert documents(volumes, "pvc://corpus/train-0.jsonl") == PLAIN


def test_links_that_go_round_multiply_nothing(volumes: Path) -> None:
    """By glob two such links would be 2 ** 40 folders."""
    folder = volumes / "corpus"
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / f"{name}.jsonl").write_bytes(lines([name]))
    for name in ("one", "two", "three"):
        (folder / "a" / name).symlink_to("..")
        (folder / "b" / name).symlink_to("../a")
    assert documents(volumes, "pvc://corpus/**/*.jsonl") == ["a", "b"]
    assert documents(volumes, "pvc://corpus/**/*/**/*.jsonl") == ["a", "b"]


def test_a_file_of_two_names_is_read_once_and_told(volumes: Path) -> None:
    (volumes / "corpus/b.jsonl").write_bytes(lines(PLAIN))
    (volumes / "corpus/a.jsonl").symlink_to("b.jsonl")
    files = find_files("pvc://corpus/*.jsonl", FIELD, str(volumes), SUFFIXES)
    assert ([path.name for path in files.paths], files.again) == (["b.jsonl"], ("pvc://corpus/a.jsonl",))


def test_a_glob_is_as_that_of_python(volumes: Path) -> None:
    import glob

    for name in ("a.txt", "b1.txt", "x/c.txt", "x/.hidden.txt", "x/y/d.txt", ".git/e.txt", "z[1].txt"):
        (volumes / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (volumes / "corpus" / name).write_text(name)
    patterns = (
        "*.txt",
        "**/*.txt",
        "x/**/*.txt",
        "?.txt",
        "[ab]*.txt",
        "*/c.txt",
        "x/**",
        "**/.hidden.txt",
        "z[[]1].txt",
    )
    for pattern in patterns:
        found = find_files(f"pvc://corpus/{pattern}", FIELD, str(volumes), SUFFIXES).paths
        expected = glob.glob(f"{volumes}/corpus/{pattern}", recursive=True)  # noqa: PTH207 -- what it is compared with
        assert [str(path) for path in found] == sorted({path for path in expected if Path(path).is_file()}), pattern
    assert documents(volumes, "pvc://corpus/z[1].txt") == ["z[1].txt"]


def test_a_name_that_is_not_utf8(volumes: Path) -> None:
    (Path(os.fsdecode(os.fsencode(volumes / "corpus") + b"/\xff.jsonl"))).write_bytes(lines(PLAIN))
    with pytest.raises(DataError, match=r"the name of pvc://corpus/\\xff.jsonl is not UTF-8; rename the file"):
        documents(volumes, "pvc://corpus/*.jsonl")


def test_a_folder_or_a_pipe_with_the_name_of_a_file(volumes: Path) -> None:
    (volumes / "corpus/part.parquet").mkdir()
    with pytest.raises(DataError, match=r"pvc://corpus/part.parquet is a folder and no file; name the files in it"):
        documents(volumes, "pvc://corpus/*.parquet")
    os.mkfifo(volumes / "corpus/pipe.jsonl")
    with pytest.raises(DataError, match=r"pvc://corpus/pipe.jsonl is no regular file"):
        documents(volumes, "pvc://corpus/*.jsonl")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become nobody for a moment")
def test_without_the_right_to_read() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        volumes = Path(made)
        volumes.chmod(0o755)
        (volumes / "corpus/locked").mkdir(parents=True)
        (volumes / "corpus/a.jsonl").write_bytes(lines(PLAIN))
        (volumes / "corpus/a.jsonl").chmod(0o600)
        (volumes / "corpus/locked").chmod(0o700)
        os.seteuid(65534)
        try:
            with pytest.raises(DataError, match=r"pvc://corpus/a.jsonl can't be read by the pod's user .* permission"):
                documents(volumes, "pvc://corpus/a.jsonl")
            with pytest.raises(DataError, match=r"can't be read by the pod's user .* permission denied"):
                documents(volumes, "pvc://corpus/**/*.jsonl")
        finally:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.EIO, "Input/output error"), r"line 2 can't be read: the storage failed"),
        (OSError(errno.ESTALE, "Stale file handle"), r"line 2 can't be read: the storage failed"),
        (FileNotFoundError(errno.ENOENT, "gone"), r"line 2 is not there any more"),
        (pa.ArrowException("whatever"), r"line 2 can't be read: whatever; the file is damaged"),
    ],
)
def test_a_storage_that_fails_while_a_file_is_read(
    volumes: Path, error: Exception, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.RawIOBase):
        parts = iter([lines(PLAIN[:1]) + b"\n"])

        def read(self, size: int = -1) -> bytes:
            for part in self.parts:
                return part
            raise error

    monkeypatch.setattr(readers, "open_bytes", lambda path: Failing())
    (volumes / "corpus/a.jsonl").write_bytes(lines(PLAIN))
    with pytest.raises(DataError, match=rf"{FIELD.replace('[', '.').replace(']', '.')}: pvc://corpus/a.jsonl, {says}"):
        documents(volumes, "pvc://corpus/a.jsonl")


def test_a_file_that_vanishes(volumes: Path) -> None:
    (volumes / "corpus/a.jsonl").write_bytes(lines(PLAIN))
    files = find_files("pvc://corpus/a.jsonl", FIELD, str(volumes), SUFFIXES)
    (volumes / "corpus/a.jsonl").unlink()
    with pytest.raises(DataError, match=r"pvc://corpus/a.jsonl is not there any more"):
        list(read_documents(files, "text"))
    with pytest.raises(DataError, match="is not there any more"):
        files.bytes  # noqa: B018


# --- whatever a file holds ---

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
ANY_ROWS = st.lists(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, max_size=4), max_size=8)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One claim for all examples of a property."""
    folder = tmp_path_factory.mktemp("volumes")
    (folder / "corpus").mkdir()
    yield folder
    shutil.rmtree(folder)


PACK: dict[str, Callable[[bytes], bytes]] = {
    "a.jsonl": bytes,
    "a.json.gz": gzip.compress,
    "a.jsonl.zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("name", list(PACK))
@given(rows=ANY_ROWS, escaped=st.booleans())
def test_rows_of_lines_are_read_as_they_were_written(name: str, rows: list[Row], escaped: bool, shared: Path) -> None:
    text = "\n".join(json.dumps(row, ensure_ascii=escaped) for row in rows)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = "\n".join(map(json.dumps, rows)).encode()
    path = shared / "corpus" / name
    path.write_bytes(PACK[name](data))
    try:
        found = [row for _, row in rows_of(shared, f"pvc://corpus/{name}")]
    except DataError as error:
        assert "has half a character" in str(error)  # noqa: PT017
        assert any("\\ud" in json.dumps(row) for row in rows)
    else:
        assert found == rows


TABLE_VALUES = {
    pa.string(): st.text(st.characters(exclude_categories=["Cs"])),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.list_(pa.struct([("role", pa.string()), ("n", pa.int32())])): st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["user", "あ"]), "n": st.none() | st.integers(0, 9)}), max_size=3
    ),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    size = draw(st.integers(0, 6))
    names = draw(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), unique=True, max_size=3))
    columns = {}
    for name in names:
        kind = draw(st.sampled_from(list(TABLE_VALUES)))
        values = draw(st.lists(st.none() | TABLE_VALUES[kind], min_size=size, max_size=size))
        columns[name] = pa.array(values, kind)
    return pa.table(columns)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "stream.arrow"])
@given(table=tables())
def test_rows_of_tables_are_read_as_they_were_written(name: str, table: pa.Table, shared: Path) -> None:
    write_table(table, shared / "corpus" / name)
    assert [row for _, row in rows_of(shared, f"pvc://corpus/{name}")] == table.to_pylist()


def whole(name: str, folder: Path) -> bytes:
    """A small file of a kind."""
    rows = [{"prompt": f"p{n} いろは", "completion": "c", "text": f"t{n}"} for n in range(3)]
    if name.endswith((".parquet", ".arrow")):
        write_table(pa.Table.from_pylist(rows), folder / name)
        return (folder / name).read_bytes()
    return PACK.get(name, bytes)("\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())


ALL = [*PACK, "a.parquet", "a.arrow", "stream.arrow"]


def read_all(volumes: Path, name: str) -> list[Any]:
    """Both ways to read a file; nothing but a DataError that names it comes out."""
    found: list[Any] = []
    for read in (
        lambda: documents(volumes, f"pvc://corpus/{name}"),
        lambda: rows_of(volumes, f"pvc://corpus/{name}"),
    ):
        try:
            found.append(read())
        except DataError as error:
            assert f"pvc://corpus/{name}" in str(error)  # noqa: PT017
            found.append(None)
    return found


@pytest.mark.parametrize("name", ALL)
def test_a_file_that_is_cut_at_any_byte(name: str, volumes: Path) -> None:
    data = whole(name, volumes / "corpus")
    (volumes / "corpus" / name).write_bytes(data)
    texts, rows = read_all(volumes, name)
    for size in range(len(data)):
        (volumes / "corpus" / name).write_bytes(data[:size])
        cut_texts, cut_rows = read_all(volumes, name)
        cut_texts = [text for text in cut_texts or [] if text is not None]  # a character that is cut isn't UTF-8
        assert cut_texts == texts[: len(cut_texts)]
        assert cut_rows is None or cut_rows == rows[: len(cut_rows)]
        if name not in ("a.jsonl", "stream.arrow"):  # these two tell no end
            assert cut_rows is None or cut_rows == rows


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=100)
@given(data=st.data())
def test_a_file_with_damaged_bytes(name: str, data: st.DataObject, shared: Path) -> None:
    content = bytearray(whole(name, shared / "corpus"))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (shared / "corpus" / name).write_bytes(content)
    read_all(shared, name)


@pytest.mark.parametrize("name", [*ALL, "a.txt"])
@given(content=st.binary())
def test_a_file_of_any_bytes(name: str, content: bytes, shared: Path) -> None:
    (shared / "corpus" / name).write_bytes(content)
    try:
        assert all(isinstance(raw, RawDocument) for raw in read_documents(_files(shared, name), "text"))
    except DataError as error:
        assert f"pvc://corpus/{name}" in str(error)  # noqa: PT017


def _files(volumes: Path, name: str) -> Files:
    return find_files(f"pvc://corpus/{name}", FIELD, str(volumes), SUFFIXES)
