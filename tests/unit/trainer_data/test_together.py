"""Any number of processes, and attempts that die at any moment, make the same bytes."""

from __future__ import annotations

import gzip
import json
import random
from contextlib import suppress
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm_trainer.config import Data, PrepareData, Source, Tokenizer, TrainTokenizer
from llm_trainer.data import line_ranges, phases, progress, readers, units
from llm_trainer.data.documents import read_unit
from llm_trainer.data.files import find_files
from llm_trainer.data.manifest import DataManifest, read_manifest
from llm_trainer.data.prepare import WORK, prepare
from llm_trainer.data.progress import Speed, Step
from llm_trainer.data.sources import read_part
from llm_trainer.data.units import Unit
from llm_trainer.data.verify import alteration
from llm_trainer.runtime.errors import DataError, PreemptedError

from .conftest import WriteLines
from .together import PUBLISH, Death, together

WORDS = ["apple", "pear", "tree", "garden", "basket", "winter", "river", "stone", "bridge", "of", "the", "and", "to"]
QUALITY = {
    "gopher": {"minimumWords": 12, "minimumStopWords": 0, "minimumMeanWordLength": 0},
    "personalData": {},
    "nearDuplicates": {"threshold": 0.7},
}


def document(number: int) -> str:
    chance = random.Random(number)
    return (
        f"Document {number}: " + " ".join(chance.choices(WORDS, k=chance.randrange(8, 60))) + f" {number}@example.com."
    )


@pytest.fixture
def corpus(volumes: Path, write_lines: WriteLines) -> Path:
    """Three sources in ranges of lines, row groups and small files; with equal, similar, empty and bad documents."""
    first = [{"text": document(number)} for number in range(60)]
    again = [{"text": document(number)} for number in range(0, 60, 5)]
    similar = [{"text": f"{document(number)[:-1]} too."} for number in range(2, 60, 7)]
    write_lines("a.jsonl", [*first[:40], "", {"text": "  "}, *again, *first[40:], b'{"text": "\xff"}', *similar])
    rows = [document(number) for number in range(50, 110)]
    pq.write_table(pa.table({"text": [*rows, *rows[:3]]}), volumes / "corpus/b.parquet", row_group_size=5)
    for number in range(100, 130):
        (volumes / f"corpus/c{number}.txt").write_text(document(number))
    return volumes


def config(quality: dict[str, Any] | None = QUALITY) -> PrepareData:
    uris = {"a": "a.jsonl", "b": "b.parquet", "c": "c*.txt"}
    sources = [Source(name=name, uri=f"pvc://corpus/{uri}", language="en") for name, uri in uris.items()]
    settings = {"sources": sources, "validationFraction": 0.2, "maxInvalidFraction": 0.1, "quality": quality}
    return PrepareData(
        data=Data.model_validate(settings), tokenizer=Tokenizer(train=TrainTokenizer(vocabulary_size=512))
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest_of(folder: Path) -> DataManifest:
    manifest = read_manifest(folder)
    assert manifest
    return manifest


def tokens_of(folder: Path) -> dict[tuple[str, str], list[int]]:
    """By source and split, with the ends of documents."""
    manifest, found = manifest_of(folder), dict[tuple[str, str], list[int]]()
    for shard in manifest.shards:
        found.setdefault((shard.source, shard.split), []).extend(
            np.fromfile(folder / shard.file, manifest.dtype).tolist()
        )
    return found


def test_any_number_of_processes_and_any_death_make_the_same_bytes(corpus: Path) -> None:
    models = corpus / "models"
    for processes in (1, 2, 4):
        made = together(config(), corpus, processes=processes, run=f"run-{processes}")
        assert len(made) == processes, f"each has made something: {made}"
        # what is found by the note of another run would prove nothing
        (corpus / "models/.llm-operator/prepared").rename(corpus / f"notes-{processes}")
    wanted = files_of(models / "run-1/data")
    assert manifest_of(models / "run-1/data").quality
    assert len(manifest_of(models / "run-1/data").shards) > 12
    assert alteration(models / "run-1/data", manifest_of(models / "run-1/data")) is None
    assert files_of(models / "run-2/data") == files_of(models / "run-4/data") == wanted

    phases = ("Documents", "Equals", "Quality", "NearDuplicates", "Tokenizer", "Tokens")
    deaths = [Death(phase, after) for phase in phases for after in (False, True)][: 2 * len(phases)]
    chain = [death for death in (*deaths, Death(PUBLISH)) if death.after != (death.phase in ("Equals", "Tokens"))]
    for attempt, (death, processes) in enumerate(zip(chain, cycle((2, 1, 3)), strict=False), start=1):
        together(config(), corpus, processes=processes, attempt=attempt, death=death)
        assert not (models / "run/data").exists()
    last = together(config(), corpus, processes=2, attempt=len(chain) + 1)
    assert files_of(models / "run/data") == wanted
    assert not (models / "run" / WORK).exists()
    assert sum(last.values()) < len(wanted), "only what the last death took is made again"


def test_units_change_where_shards_end_and_nothing_else(corpus: Path) -> None:
    """A small corpus is one unit for each source; the report and all documents are those of many units."""
    together(config(), corpus, processes=1, run="many")
    prepare(config(), corpus / "models/one/data", str(corpus), "1", lambda _: None)
    one, many = corpus / "models/one/data", corpus / "models/many/data"
    assert [shard.file for shard in manifest_of(one).shards][:2] == ["train/a-00000.bin", "validation/a-00000.bin"]
    assert len(manifest_of(many).shards) > 2 * len(manifest_of(one).shards)
    assert tokens_of(one) == tokens_of(many)
    assert manifest_of(one).sources == manifest_of(many).sources
    for name in ("report.json", "dropped.parquet", "report.html"):
        assert (one / "quality" / name).read_bytes() == (many / "quality" / name).read_bytes()
    places = json.loads((one / "quality/report.json").read_text())["sources"][0]["filters"][-1]["reasons"]
    assert "a.jsonl, line " in places["threshold"]["samples"][0]["place"]


def test_a_damaged_file_is_named_and_what_is_made_of_the_others_stays(
    volumes: Path, write_lines: WriteLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def read_and_told(unit: Unit, *arguments: Any) -> None:
        read.extend(part.path.name for part in unit.parts)
        read_unit(unit, *arguments)

    monkeypatch.setattr(phases, "read_unit", read_and_told)
    monkeypatch.setattr(units, "SMALLEST", 4000)
    monkeypatch.setattr(units, "LARGEST", 4000)
    names = [f"{name}.jsonl" for name in "abd"]
    for at, name in enumerate(names):
        write_lines(name, [{"text": document(number)} for number in range(30 * at, 30 * at + 20)])
    whole = gzip.compress((volumes / "corpus/d.jsonl").read_bytes())
    (volumes / "corpus/c.jsonl.gz").write_bytes(whole[:-30])
    (volumes / "corpus/d.jsonl").unlink()
    settings = PrepareData(
        data=Data(sources=[Source(name="all", uri="pvc://corpus/*")]),
        tokenizer=Tokenizer(train=TrainTokenizer(vocabulary_size=512)),
    )

    def run(attempt: str) -> DataManifest:
        return prepare(settings, volumes / "models/run/data", str(volumes), attempt, lambda _: None)

    with pytest.raises(DataError, match=r"pvc://corpus/c.jsonl.gz, line \d+ can't be read"):
        run("1")
    assert "a.jsonl" in read
    read.clear()
    (volumes / "corpus/c.jsonl.gz").write_bytes(whole)
    assert sum(source.documents for source in run("2").sources) == 60
    assert "c.jsonl.gz" in read
    assert "a.jsonl" not in read


def test_a_line_is_counted_in_the_whole_file(
    volumes: Path, write_lines: WriteLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by who reads a part of it alone."""
    monkeypatch.setattr(units, "SMALLEST", 2000)
    monkeypatch.setattr(units, "LARGEST", 2000)
    write_lines("a.jsonl", [*({"text": document(number)} for number in range(60)), "no JSON"])
    settings = PrepareData(
        data=Data(sources=[Source(name="all", uri="pvc://corpus/*")]),
        tokenizer=Tokenizer(train=TrainTokenizer(vocabulary_size=512)),
    )
    with pytest.raises(DataError, match=r"pvc://corpus/a.jsonl, line 61 is not JSON"):
        prepare(settings, volumes / "models/run/data", str(volumes), "1", lambda _: None)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("block", [3, 1 << 20])
@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_a_file_in_ranges_has_each_line_once(
    volumes: Path, end: str, block: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "BLOCK", block)
    monkeypatch.setattr(line_ranges, "BLOCK", block)
    path = volumes / "corpus/a.jsonl"
    path.write_bytes(end.join(f'{{"text": "{"x" * (number % 5)}{number}"}}' for number in range(30)).encode())
    files = find_files("pvc://corpus/a.jsonl", "field", str(volumes), (".jsonl",))
    length, found, rows = path.stat().st_size, [], []
    for begin in range(0, length, size):
        finish = None if begin + size >= length else begin + size
        at = readers.Reading.of(files, readers.Part(path, begin, finish, None if begin else 0))
        found += [raw.text for raw in read_part(at, "text")]
        rows.append(line_ranges.lines_before(partial(files.open, path), begin) if begin else 0)
    assert found == [f"{'x' * (number % 5)}{number}" for number in range(30)]
    assert rows == sorted(rows)


def test_progress_counts_units_and_goes_on(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has made stays counted while it makes the next one; an attempt that goes on begins there."""
    monkeypatch.setattr(units, "SMALLEST", 4000)
    monkeypatch.setattr(units, "LARGEST", 4000)
    monkeypatch.setattr(progress, "SHOWN_BYTES", 1)

    def run(leave_at: int) -> list[Step]:
        steps: list[Step] = []

        def report(step: Step) -> None:
            steps.append(step)
            if step.phase == "Tokens" and step.units == leave_at:
                raise PreemptedError("asked to leave")

        with suppress(PreemptedError):
            prepare(config(), corpus / "models/run/data", str(corpus), str(leave_at), report)
        return steps

    first = run(leave_at=3)
    for phase in ("Documents", "Quality", "Tokens"):
        own = [step for step in first if step.phase == phase]
        assert [step.units for step in own] == sorted(step.units for step in own)
        assert [step.done for step in own] == sorted(step.done for step in own)
        assert {step.units for step in own} >= {0, 1, 2, 3}, "seen while one process does all"
    assert first[-1].total_units > 3
    second = [step for step in run(leave_at=10**6) if step.phase == "Tokens"]
    assert second[0].units >= 3
    assert (second[-1].units, second[-1].done) == (second[-1].total_units, second[-1].total)


def test_the_time_that_is_left_counts_the_passes_that_follow() -> None:
    speed, phases = Speed(), ("Documents", "Tokenizer", "Tokens")
    assert speed.of(Step("Documents", 100, 1000, phases=phases), 10.0) == (None, None)
    assert speed.of(Step("Documents", 300, 1000, phases=phases), 12.0) == (100.0, 27.0), "0.7 of one and two more"
    assert speed.of(Step("Tokens", 0, 1000, phases=phases), 20.0) == (None, None), "another pass has its own speed"
    assert speed.of(Step("Tokens", 1000, 1000, phases=phases), 21.0) == (1000.0, 0.0)
