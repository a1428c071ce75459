"""Files that can't be decoded: named, and skipped up to a stated share."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm_trainer.config import Data, PrepareData, Quality, Source, Tokenizer, TrainTokenizer
from llm_trainer.data import units
from llm_trainer.data.manifest import DataManifest
from llm_trainer.data.prepare import prepare
from llm_trainer.data.verify import alteration
from llm_trainer.runtime.errors import DataError
from llm_trainer.stages.data_summary import notices


def lines(begin: int, count: int) -> bytes:
    texts = (f"Document {number} has a text of its own, {number * 7919}." for number in range(begin, begin + count))
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def damage(folder: Path, kind: str) -> str:
    """A file of that kind which can't be read to its end; its name."""
    match kind:
        case "gzip cut":
            (folder / "c.jsonl.gz").write_bytes(gzip.compress(lines(100, 2000))[:-40])
            return "c.jsonl.gz"
        case "gzip empty":
            (folder / "c.jsonl.gz").write_bytes(b"")
            return "c.jsonl.gz"
        case "gzip of another format":
            (folder / "c.jsonl.gz").write_bytes(lines(100, 20))
            return "c.jsonl.gz"
        case "parquet without an end":
            pq.write_table(
                pa.table({"text": [f"Row {number} of a table." for number in range(400)]}), folder / "c.parquet"
            )
            (folder / "c.parquet").write_bytes((folder / "c.parquet").read_bytes()[:-20])
            return "c.parquet"
        case _:
            pq.write_table(
                pa.table({"text": [f"Row {number} of a table." for number in range(400)]}), folder / "c.parquet"
            )
            data = bytearray((folder / "c.parquet").read_bytes())
            data[40:400] = b"\xff" * 360
            (folder / "c.parquet").write_bytes(bytes(data))
            return "c.parquet"


KINDS = ["gzip cut", "gzip empty", "gzip of another format", "parquet without an end", "parquet pages"]


def run(volumes: Path, share: float) -> DataManifest:
    data = Data(
        sources=[Source(name="all", uri="pvc://corpus/*")],
        max_damaged_fraction=share,
        quality=Quality.model_validate({"personalData": {}}),
    )
    settings = PrepareData(data=data, tokenizer=Tokenizer(train=TrainTokenizer(vocabulary_size=512)))
    made = prepare(settings, volumes / "models/run/data", str(volumes), str(share), lambda _: None)
    told = {notice.reason: notice.message for notice in notices(settings, made)}
    assert ("DamagedFiles" in told) == bool(made.sources[0].damaged)
    return made


@pytest.mark.parametrize(("kind", "small"), [*((kind, False) for kind in KINDS), ("parquet without an end", True)])
def test_it_is_named_or_skipped_up_to_a_share(
    kind: str, small: bool, volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`small`: in units smaller than the file, whose row groups are asked for before it is read."""
    if small:
        monkeypatch.setattr(units, "SMALLEST", 1000)
        monkeypatch.setattr(units, "LARGEST", 1000)
    for number, name in enumerate("ab"):
        (volumes / f"corpus/{name}.jsonl").write_bytes(lines(20 * number, 20))
    name = damage(volumes / "corpus", kind)
    with pytest.raises(DataError, match=rf"sources\[0\].uri.*pvc://corpus/{name}"):
        run(volumes, 0)
    with pytest.raises(DataError, match=rf"1 of 3 files are damaged, more than .*maxDamagedFraction.*{name}"):
        run(volumes, 0.3)
    made = run(volumes, 0.5)
    [source] = made.sources
    [damaged] = source.damaged
    assert (damaged.file, damaged.bytes) == (f"pvc://corpus/{name}", (volumes / "corpus" / name).stat().st_size)
    assert source.documents >= 40
    data = volumes / "models/run/data"
    assert alteration(data, made) is None
    report = json.loads((data / "quality/report.json").read_text())
    assert name in report["sources"][0]["damaged"][0]
    assert name in (data / "quality/report.html").read_text()


def test_what_is_no_damage_is_never_skipped(volumes: Path) -> None:
    (volumes / "corpus/a.jsonl").write_bytes(lines(0, 20))
    (volumes / "corpus/b.jsonl").write_bytes(b'{"body": "no text"}\n')
    with pytest.raises(DataError, match=r"b.jsonl, line 1 needs a string 'text'"):
        run(volumes, 1)
