"""Whatever a file holds: what is read is what was written, and no error but a DataError that names the file."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trainer.data.files import SUFFIXES, Files, find_files
from llm_trainer.data.readers import Row
from llm_trainer.data.sources import RawDocument, read_documents
from llm_trainer.runtime.errors import DataError

from .files import FIELD, documents, rows_of, write_table

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
