"""A corpus that is read where it lies: the same bytes as of a copy; what has changed is told; little is asked for."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_trainer.config import CACHE, StageConfig
from llm_trainer.data import units
from llm_trainer.data.manifest import DataManifest
from llm_trainer.data.prepare import prepare
from llm_trainer.runtime.errors import DataError, StorageError
from llm_trainer.stages.fetched import located
from llm_trainer.storage.__main__ import run
from llm_trainer.storage.bucket import Bucket
from llm_trainer.storage.remote_files import RemoteFile
from llm_trainer.storage.request import INPUTS, Many, Request
from llm_trainer.storage.retry import TRIES
from llm_trainer.storage.streams import RemoteStream, open_streams
from tests.storage.s3_server import serving, store
from tests.storage.test_ranges import CONTENT, REMOTE, Script

URI = "s3://corpora/crawl/*"


def text(number: int) -> str:
    chance = random.Random(number)
    return f"Document {number}: " + " ".join(chance.choices(["apple", "river", "stone", "of", "winter"], k=60))


def packed(codec: str, data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def corpus() -> dict[str, bytes]:
    """Lines, also packed, rows in row groups beside a large column that nobody wants, and a text."""
    lines = [
        "\n".join(json.dumps({"text": text(n)}) for n in range(part, 400, 4)).encode() + b"\n" for part in range(4)
    ]
    table = pa.table({
        "text": [text(n) for n in range(1000, 1200)],
        "pages": [random.Random(n).randbytes(20_000) for n in range(200)],
    })  # fmt: skip
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=50)
    return {
        "crawl/a.jsonl": lines[0], "crawl/b.jsonl.gz": gzip.compress(lines[1], mtime=0),
        "crawl/c.jsonl.zst": packed("zstd", lines[2]),
        "crawl/d.txt": lines[3], "crawl/e.parquet": sink.getvalue(),
    }  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with serving(tmp_path_factory.mktemp("s3")) as values:
        for name, content in corpus().items():
            store(values).put(name, content)
        yield values


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "SMALLEST", 20_000)


def config(volumes: Path, keys: dict[str, str], *, stream: bool) -> StageConfig:
    secret = volumes / "secret"
    secret.mkdir(parents=True, exist_ok=True)
    for key, value in keys.items():
        (secret / key).write_text(value)
    wanted = {"field": "spec.data.sources[0].uri", "uri": URI, "use": "data", "stream": stream}
    given = [{"secretName": "store", "target": "s3://corpora", "folder": str(secret)}]
    data = {"sources": [{"name": "crawl", "uri": URI, "stream": stream}], "validationFraction": 0.1}
    return StageConfig.model_validate({
        "training": "t", "namespace": "n", "uid": "u", "stage": "data", "attempt": 1, "nodes": 1,
        "processesPerNode": 1, "device": "cpu", "volumesRoot": str(volumes), "runUri": "pvc://models/run",
        "prepareData": {
            "data": data, "tokenizer": {"train": {"vocabularySize": 512}}, "remote": [wanted], "credentials": given,
        },
    })  # fmt: skip


def listed(made: StageConfig) -> StageConfig:
    """As data preparation begins."""
    settings = made.prepare_data
    assert settings
    cache = f"{made.volumes_root}/models/{CACHE}"
    inputs = run(
        Request(claim="models", cache=cache, writer="u", inputs=settings.remote, credentials=settings.credentials)
    )
    Path(made.run_folder).mkdir(parents=True, exist_ok=True)
    (Path(made.run_folder) / INPUTS).write_bytes(Many.dump_json(inputs))
    return located(made)


def prepared(made: StageConfig, check: Any = lambda: None) -> DataManifest:
    assert made.prepare_data
    return prepare(
        made.prepare_data,
        Path(made.data_folder),
        made.volumes_root,
        "u-1",
        lambda _: None,
        check,
        streams=open_streams(made),
    )


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Bytes that came of each file."""
    found: dict[str, int] = {}
    read = Bucket.read

    def counting(self: Bucket, remote: Any, file: RemoteFile, start: int, stop: int | None = None) -> Iterator[bytes]:
        for block in read(self, remote, file, start, stop):
            found[file.path] = found.get(file.path, 0) + len(block)
            yield block

    monkeypatch.setattr(Bucket, "read", counting)
    return found


def test_the_same_bytes_as_of_a_copy(keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = listed(config(tmp_path / "copied", keys, stream=False))
    streamed = listed(config(tmp_path / "streamed", keys, stream=True))
    came = counted(monkeypatch)
    manifest = prepared(streamed)
    assert manifest.digest == prepared(copied).digest
    folders = [files_below(Path(each.data_folder)) for each in (copied, streamed)]
    for folder in folders:
        del folder["manifest.json"]  # with the fingerprint, which names settings
    assert folders[0] == folders[1]
    assert manifest.sources[0].documents > 500
    parquet = corpus()["crawl/e.parquet"]
    assert came["crawl/e.parquet"] < len(parquet) / 4, "of the column that is wanted alone"
    assert not [
        path for path in (tmp_path / "streamed/models" / CACHE).rglob("*") if path.suffix != ".json" and path.is_file()
    ]


def test_an_attempt_goes_on_behind_the_units_that_are_made(
    keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = listed(config(tmp_path, keys, stream=True))
    came, whole = counted(monkeypatch), sum(map(len, corpus().values()))
    prepared(made)
    at_once = sum(came.values())
    assert at_once < whole
    came.clear()
    prepared(made)
    assert sum(came.values()) < at_once / 4, "nothing but where row groups lie"


def test_what_changes_between_two_reads_is_refused(keys: dict[str, str], tmp_path: Path) -> None:
    made = listed(config(tmp_path, keys, stream=True))
    before = corpus()["crawl/a.jsonl"]
    store(keys).put("crawl/a.jsonl", before.replace(b"apple", b"APPLE"))
    try:
        with pytest.raises(
            DataError, match=r"s3://corpora/crawl/\*: crawl/a.jsonl is not what was listed: .*has changed"
        ):
            prepared(made)
    finally:
        store(keys).put("crawl/a.jsonl", before)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 1500), max_size=TRIES - 1),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 2000)), max_size=6),
)
def test_any_reads_by_any_server(cuts: list[int], reads: list[tuple[int, int]]) -> None:
    stream = RemoteStream(Script(CONTENT, *cuts), REMOTE, RemoteFile("file", len(CONTENT), "1"), "uri", lambda _: None)
    for start, size in reads:
        stream.seek(start)
        assert stream.read(size) == CONTENT[start : start + size]
        assert stream.tell() == min(len(CONTENT), start + size) or size == 0
    stream.seek(0)
    assert stream.read() == CONTENT


def test_a_server_that_brings_nothing() -> None:
    source = Script(CONTENT, *([0] * TRIES))
    stream = RemoteStream(source, REMOTE, RemoteFile("file", len(CONTENT), "1"), "uri", lambda _: None)
    with pytest.raises(StorageError, match="uri can't be read at this moment"):
        stream.read(1)


def test_requests_are_few_where_a_file_is_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_trainer.storage.streams.LEAST", 50)
    source = Script(CONTENT)
    stream = RemoteStream(source, REMOTE, RemoteFile("file", len(CONTENT), "1"), "uri")
    while stream.read(50):
        pass
    assert len(source.starts) == 7  # 50, 100, 200 …
