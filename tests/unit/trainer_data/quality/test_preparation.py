"""Filters in data preparation: what the shards, the manifest and the report hold."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from llm_trainer.config import Data, PrepareData, Source, Tokenizer, TrainTokenizer
from llm_trainer.data.manifest import DataManifest
from llm_trainer.data.prepare import WORK, Step, prepare
from llm_trainer.data.quality.page import page
from llm_trainer.data.quality.report import SAMPLES, DroppedTable, QualityReport
from llm_trainer.data.quality.selection import PAGE, REFUSED, REPORT, TABLE
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.data.verify import alteration
from llm_trainer.runtime.errors import DataError
from llm_trainer.stages.data_summary import data_figures, notices, percent, summary
from tests.unit.trainer_data.conftest import WriteLines
from tests.unit.trainer_data.test_prepare import documents_of

WORDS = (
    "apple",
    "pear",
    "tree",
    "garden",
    "basket",
    "winter",
    "summer",
    "river",
    "stone",
    "bridge",
    "letter",
    "window",
)
SHORT = {"gopher": {"minimumWords": 10, "minimumStopWords": 0, "minimumMeanWordLength": 0}}


def text(number: int) -> str:
    chance = random.Random(number)
    return f"Document {number}: " + " ".join(chance.choices(WORDS, k=60)) + "."


def config(*names: str, quality: dict[str, Any] | None, **settings: Any) -> PrepareData:
    sources = [Source(name=name, uri=f"pvc://corpus/{name}.jsonl", language="en", domain="fruit") for name in names]
    return PrepareData(
        data=Data.model_validate({"sources": sources, "validationFraction": 0.2, "quality": quality, **settings}),
        tokenizer=Tokenizer(train=TrainTokenizer(vocabulary_size=512)),
    )


def run(settings: PrepareData, volumes: Path) -> tuple[DataManifest, list[Step]]:
    steps: list[Step] = []
    return prepare(settings, volumes / "models/run/data", str(volumes), "1", steps.append), steps


def report_of(volumes: Path) -> QualityReport:
    return QualityReport.model_validate_json((volumes / "models/run/data/quality" / REPORT).read_bytes())


def texts_of(volumes: Path, manifest: DataManifest) -> Iterator[str]:
    folder = volumes / "models/run/data"
    tokenizer = load_tokenizer(folder / manifest.tokenizer)
    for shard in manifest.shards:
        for ids in documents_of(folder, shard, manifest.dtype):
            yield tokenizer.decode(ids[:-1])


@pytest.fixture
def corpus(write_lines: WriteLines) -> None:
    """Forty documents and twelve short ones; in another source a copy with another end, and an address."""
    write_lines("a.jsonl", [{"text": each} for each in [*map(text, range(40)), *(f"short {n}" for n in range(12))]])
    copy = text(3).removesuffix(".") + " again."
    write_lines("b.jsonl", [{"text": copy}, {"text": text(50) + " Ask jane@example.com."}, {"text": text(51)}])


ALL = {**SHORT, "nearDuplicates": {}, "personalData": {}}


@pytest.mark.usefixtures("corpus")
def test_what_is_kept_dropped_and_changed(volumes: Path) -> None:
    manifest, steps = run(config("a", "b", quality=ALL), volumes)
    kept = list(texts_of(volumes, manifest))
    assert sorted(kept) == sorted([*map(text, range(40)), text(50) + " Ask [EMAIL].", text(51)])
    a, b = manifest.sources
    assert (a.documents, a.filtered, b.documents, b.filtered) == (40, 12, 2, 1)
    assert (
        a.bytes + b.bytes == sum(len(each.encode()) for each in kept) == sum(shard.bytes for shard in manifest.shards)
    )
    assert manifest.quality
    assert manifest.quality.dropped == {"gopher.minimumWords": 12, "nearDuplicates.threshold": 1}
    assert "13 by quality dropped" in summary(manifest)
    figures = data_figures(manifest)
    assert figures
    [tokens] = figures.tokens
    assert (tokens.domain, tokens.language) == ("fruit", "en")
    assert tokens.tokens == sum(shard.tokens for shard in manifest.shards)
    assert [(each.reason, each.documents) for each in figures.dropped] == list(manifest.quality.dropped.items())
    assert list(dict.fromkeys(step.phase for step in steps)) == ["Documents", "Quality", "Tokenizer", "Tokens"]
    assert [percent(step) for step in steps] == sorted(percent(step) for step in steps)
    assert percent(steps[-1]) <= 100


@pytest.mark.usefixtures("corpus")
def test_the_report_has_counts_samples_and_figures(volumes: Path) -> None:
    manifest, _ = run(config("a", "b", quality=ALL), volumes)
    report = report_of(volumes)
    a, b = report.sources
    assert [each.name for each in a.filters] == ["personalData", "gopher", "nearDuplicates"]
    gopher = a.filters[1]
    assert (a.read, a.kept, gopher.read, gopher.dropped) == (52, 40, 52, 12)
    assert sum(source.kept_tokens for source in report.sources) == sum(shard.tokens for shard in manifest.shards)
    samples = gopher.reasons["minimumWords"].samples
    assert len(samples) == SAMPLES
    assert all(sample.text.startswith("short") and "a.jsonl, line" in sample.place for sample in samples)
    histogram = gopher.histograms["words"]
    assert (sum(histogram.documents), histogram.minimum) == (52, 10)
    assert (b.filters[0].edited, b.filters[0].edits) == (1, {"emails": 1})
    [duplicate] = b.filters[2].reasons["threshold"].samples
    assert "with pvc://corpus/a.jsonl, line 4" in duplicate.detail


@pytest.mark.usefixtures("corpus")
def test_the_table_and_the_page_say_the_same(volumes: Path) -> None:
    run(config("a", "b", quality=ALL), volumes)
    folder = volumes / "models/run/data/quality"
    rows = pq.read_table(folder / TABLE).to_pylist()
    assert len(rows) == 13
    assert {(row["filter"], row["reason"], row["source"]) for row in rows} == {
        ("gopher", "minimumWords", "a"),
        ("nearDuplicates", "threshold", "b"),
    }
    html = (folder / PAGE).read_text()
    assert "<svg" in html
    assert "prefers-color-scheme" in html
    assert "<script" not in html
    assert "http" not in html.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert [path.name for path in sorted(folder.iterdir())] == sorted([REPORT, TABLE, PAGE])


def test_the_page_escapes_what_documents_say(volumes: Path, write_lines: WriteLines) -> None:
    evil = "<script>alert(1)</script>"
    write_lines("a.jsonl", [{"text": each} for each in [*map(text, range(20)), evil]])
    run(config("a", quality=SHORT), volumes)
    assert evil not in page(report_of(volumes))
    assert "&lt;script&gt;" in page(report_of(volumes))


@pytest.mark.usefixtures("corpus")
def test_the_same_texts_make_the_same_bytes(volumes: Path) -> None:
    first, _ = run(config("a", "b", quality=ALL), volumes)
    data = volumes / "models/run/data"
    files = {path.relative_to(data): path.read_bytes() for path in data.rglob("*") if path.is_file()}
    (volumes / "corpus/a.jsonl").touch()
    second, steps = run(config("a", "b", quality=ALL), volumes)
    assert steps, "a file with another time is read again"
    assert second.digest == first.digest
    again = {path.relative_to(data): path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert {name for name in files if files[name] != again[name]} == {Path("manifest.json")}, "it has the files' times"
    assert run(config("a", "b", quality=ALL), volumes)[1] == []


@pytest.mark.usefixtures("corpus")
def test_without_quality_nothing_is_as_if_it_existed(volumes: Path) -> None:
    """The manifest, its digest and the fingerprint of data that was prepared before stay what they were."""
    settings = config("a", "b", quality=None)
    assert "quality" not in settings.model_dump_json()
    run(settings, volumes)
    folder = volumes / "models/run/data"
    written = json.loads((folder / "manifest.json").read_text())
    assert set(written) == {
        "version", "vocabularySize", "eosTokenId", "dtype", "tokenizer", "sources", "shards", "tokenizerSha256",
        "fingerprint", "digest",
    }  # fmt: skip
    assert set(written["sources"][0]) == {
        "name", "uri", "language", "domain", "license", "files", "documents", "duplicates", "invalid", "empty", "bytes",
    }  # fmt: skip
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "tokenizer", "train", "validation"}


@pytest.mark.usefixtures("corpus")
def test_filters_that_drop_nothing_leave_the_same_shards(volumes: Path) -> None:
    without, _ = run(config("a", "b", quality=None), volumes)
    nothing = {"gopher": {**SHORT["gopher"], "minimumWords": 0, "minimumAlphabeticWords": 0}}
    with_filters, _ = run(config("a", "b", quality=nothing), volumes)
    assert with_filters.shards == without.shards
    assert with_filters.digest != without.digest


@pytest.mark.usefixtures("corpus")
def test_a_filter_that_drops_everything_stops_with_the_report(volumes: Path) -> None:
    with pytest.raises(DataError, match=r"dropped all 55 documents.*gopher.minimumWords 55.*quality-report") as caught:
        run(config("a", "b", quality={"gopher": {"minimumWords": 1000}}), volumes)
    assert "report.html" in str(caught.value)
    left = volumes / "models/run"
    assert {path.name for path in left.iterdir()} == {REFUSED, WORK}
    assert "short" in (left / REFUSED / PAGE).read_text()
    assert pq.read_table(left / REFUSED / TABLE).num_rows == 55
    run(config("a", "b", quality=SHORT), volumes)
    assert [path.name for path in left.iterdir()] == ["data"], "a report of what is corrected would mislead"


def test_a_source_that_is_dropped_as_a_whole_is_told(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("a.jsonl", [{"text": each} for each in map(text, range(20))])
    write_lines("b.jsonl", [{"text": f"short {number}"} for number in range(20)])
    settings = config("a", "b", quality=SHORT)
    manifest, _ = run(settings, volumes)
    told = {notice.reason: notice.message for notice in notices(settings, manifest)}
    assert "source 'b': all 20 documents" in told["SourceDropped"]
    assert "NothingHeldOut" not in told


@pytest.mark.usefixtures("corpus")
def test_the_held_out_documents_stay_the_same(volumes: Path) -> None:
    """Also of a document that a filter changes: what it was chooses."""

    def held_out() -> set[str]:
        manifest, _ = run(config("a", "b", quality=quality), volumes)
        folder, tokenizer = volumes / "models/run/data", None
        found: set[str] = set()
        for shard in manifest.shards:
            tokenizer = tokenizer or load_tokenizer(folder / manifest.tokenizer)
            if shard.split == "validation":
                found |= {tokenizer.decode(ids[:20]) for ids in documents_of(folder, shard, manifest.dtype)}
        return {each.split(":")[0] for each in found if not each.startswith("short")}

    quality: dict[str, Any] | None = None
    before = held_out()
    quality = {"personalData": {}, **SHORT}
    assert held_out() == before


@pytest.mark.usefixtures("corpus")
def test_a_report_that_was_altered_is_noticed(volumes: Path) -> None:
    manifest, _ = run(config("a", "b", quality=ALL), volumes)
    data = volumes / "models/run/data"
    assert alteration(data, manifest) is None
    (data / "quality" / REPORT).write_text("{}")
    assert alteration(data, manifest) == "quality/report.json was altered or is missing"


def test_the_table_is_bounded(tmp_path: Path) -> None:
    from llm_trainer.data.corpus import Document
    from llm_trainer.data.files import Place

    with DroppedTable(tmp_path / TABLE, most_bytes=1000) as table:
        for number in range(50):
            table.add("a", Document("x" * 100, 100, b"", "train", Place("f", number)), "gopher", "minimumWords", "")
    assert table.left_out == 39
    assert pq.read_table(tmp_path / TABLE).num_rows == 11


def test_quotes_of_an_evaluation_set_are_dropped(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("a.jsonl", [{"text": each} for each in map(text, range(20))])
    write_lines("eval.jsonl", [{"question": text(7)[20:]}])
    manifest, _ = run(config("a", quality={"decontamination": {"uris": ["pvc://corpus/eval.jsonl"]}}), volumes)
    assert manifest.quality
    assert manifest.quality.dropped == {"decontamination.ngram": 1}
    assert text(7) not in set(texts_of(volumes, manifest))
