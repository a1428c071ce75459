"""What the filters did: counts, figures and samples as JSON, and what was dropped as a table. Memory is bounded."""

from __future__ import annotations

import hashlib
import heapq
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from llm_trainer.config import Source
from llm_trainer.data.corpus import Document
from llm_trainer.data.quality.text import Measures, Verdict, several

SAMPLES = 10  # of each reason
SAMPLE_CHARACTERS = 600
TEXT_CHARACTERS = 1 << 16  # of a dropped document in the table
TABLE_ROWS, TABLE_BYTES = 1024, 8 << 20  # held before they are written
MOST_BYTES = 1 << 30  # of text in the table; what follows is counted alone

SHARES = tuple(round(edge / 40, 3) for edge in range(41))
POWERS = (0.0, *(float(2**power) for power in range(28)))
EDGES: dict[str, Sequence[float]] = {
    "words": POWERS,
    "sentences": POWERS,
    "mean_word_length": tuple(edge / 2 for edge in range(41)),
    "stop_words": tuple(float(edge) for edge in range(10)),
}


class _Record(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class Sample(_Record):
    """A dropped document."""

    place: str
    detail: str = ""
    text: str


class Reason(_Record):
    """A threshold that documents passed."""

    documents: int = 0
    bytes: int = 0
    samples: list[Sample] = Field(default_factory=list, description="Chosen by hash, so that they tell of all.")


class Histogram(_Record):
    """A measure of the documents that came to its filter; the first and last bin hold what lies beyond."""

    edges: list[float]
    documents: list[int]
    minimum: float | None = Field(default=None, description="The threshold.")
    maximum: float | None = Field(default=None, description="The threshold.")


class FilterReport(_Record):
    """What one filter did to one source."""

    name: str
    read: int = 0
    dropped: int = 0
    dropped_bytes: int = 0
    edited: int = Field(default=0, description="Documents that stay and are changed.")
    edits: dict[str, int] = Field(default_factory=dict, description="What was replaced or taken out, by kind.")
    reasons: dict[str, Reason] = Field(default_factory=dict)
    histograms: dict[str, Histogram] = Field(default_factory=dict)


class SourceReport(_Record):
    """`read` is without exact duplicates, what is empty and what is not UTF-8: the manifest has those."""

    name: str
    language: str = ""
    domain: str = ""
    read: int = 0
    read_bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0
    kept_tokens: int = 0
    damaged: list[str] = Field(
        default_factory=list,
        description="Files of which all or what comes after the damage was skipped, and why.",
        exclude_if=lambda value: not value,
    )
    filters: list[FilterReport] = Field(default_factory=list)


class QualityReport(_Record):
    version: int = 1
    settings: dict[str, object] = Field(default_factory=dict, description="spec.data.quality, with its defaults.")
    sources: list[SourceReport] = Field(default_factory=list)
    table_left_out: int = Field(default=0, description="Dropped documents that the table has no room for.")

    @property
    def dropped(self) -> dict[str, int]:
        """Documents by `filter.threshold`, most first."""
        found: dict[str, int] = {}
        for source in self.sources:
            for each in source.filters:
                for reason, what in each.reasons.items():
                    name = f"{each.name}.{reason}"
                    found[name] = found.get(name, 0) + what.documents
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


@dataclass(slots=True)
class _Samples:
    """The ten whose digests are the smallest, which any order of documents gives."""

    held: list[tuple[int, Sample]] = field(default_factory=list)

    def offer(self, digest: int, sample: Sample) -> None:
        """`digest`: a number that is the greater the smaller the document's digest is."""
        entry = (digest, sample)
        if len(self.held) < SAMPLES:
            heapq.heappush(self.held, entry)
        elif entry[0] > self.held[0][0]:
            heapq.heapreplace(self.held, entry)

    def sorted(self) -> list[Sample]:
        return [sample for _, sample in sorted(self.held, key=lambda entry: -entry[0])]


class DroppedTable:
    """A Parquet file of dropped documents, written as they come."""

    SCHEMA = pa.schema(
        [(name, pa.string()) for name in ("source", "file", "filter", "reason", "detail", "text")]
        + [("row", pa.int64()), ("bytes", pa.int64())]
    )

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self._writer = pq.ParquetWriter(path, self.SCHEMA, compression="zstd")
        self._rows: list[dict[str, object]] = []
        self._held = self._written = 0
        self._most = most_bytes
        self.left_out = 0

    def __enter__(self) -> DroppedTable:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._flush()
        self._writer.close()

    def add(self, source: str, document: Document, name: str, reason: str, detail: str) -> None:
        text = document.text[:TEXT_CHARACTERS]
        self.add_row(
            {
                "source": source, "file": document.place.file, "row": document.place.row, "bytes": document.size,
                "filter": name, "reason": reason, "detail": detail, "text": text,
            }
        )  # fmt: skip

    def add_row(self, row: dict[str, Any]) -> None:
        """As another table has it."""
        if self._written + self._held > self._most:
            self.left_out += 1
            return
        self._rows.append(row)
        self._held += len(row["text"].encode())
        if len(self._rows) >= TABLE_ROWS or self._held >= TABLE_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self.SCHEMA))
        self._written += self._held
        self._rows, self._held = [], 0


class Part(_Record):
    """What one unit has of the report. `samples`: by filter and reason, each with its document's digest as a number."""

    source: SourceReport
    samples: dict[str, dict[str, list[tuple[int, Sample]]]]
    table_left_out: int


class Ledger:
    """Takes down what the filters say."""

    def __init__(self, settings: Mapping[str, object], table: DroppedTable) -> None:
        self.report = QualityReport(settings=dict(settings))
        self._table = table
        self._samples: dict[tuple[str, str, str], _Samples] = {}
        self._filters: dict[tuple[str, str], FilterReport] = {}
        self._sources: dict[str, SourceReport] = {}

    def source(self, source: Source, filters: Sequence[str]) -> SourceReport:
        if source.name in self._sources:
            return self._sources[source.name]
        made = SourceReport(name=source.name, language=source.language, domain=source.domain)
        made.filters = [FilterReport(name=name) for name in filters]
        self.report.sources.append(made)
        self._sources[source.name] = made
        self._filters |= {(source.name, each.name): each for each in made.filters}
        return made

    def take(self, source: str, name: str, original: Document, verdict: Verdict) -> None:
        """A filter's verdict on a document, which is given as it was read."""
        found = self._filters[source, name]
        found.read += 1
        self._measure(found, verdict.measures)
        if verdict.reason is not None:
            self.drop(source, name, original, verdict.reason, verdict.detail)
        elif verdict.edits:
            found.edited += 1
            for kind, count in verdict.edits.items():
                found.edits[kind] = found.edits.get(kind, 0) + count

    def drop(self, source: str, name: str, original: Document, reason: str, detail: str) -> None:
        found = self._filters[source, name]
        found.dropped += 1
        found.dropped_bytes += original.size
        kind = found.reasons.setdefault(reason, Reason())
        kind.documents += 1
        kind.bytes += original.size
        text = original.text[:SAMPLE_CHARACTERS] + ("…" if len(original.text) > SAMPLE_CHARACTERS else "")
        sample = Sample(place=str(original.place), detail=detail, text=text)
        self._samples.setdefault((source, name, reason), _Samples()).offer(
            -int.from_bytes(original.digest, "big"), sample
        )
        self._table.add(source, original, name, reason, detail)

    def _measure(self, found: FilterReport, measures: Measures) -> None:
        for name, value in measures.items():
            values = several(value)
            for index, each in enumerate(values):
                shown = _shown(name, index if len(values) > 1 else None)
                if shown not in found.histograms:
                    found.histograms[shown] = self._histogram(found.name, name, index)
                histogram = found.histograms[shown]
                at = bisect_right(histogram.edges, each) - 1
                histogram.documents[min(max(at, 0), len(histogram.documents) - 1)] += 1

    def _histogram(self, filter_name: str, measure: str, index: int) -> Histogram:
        edges = list(EDGES.get(measure, SHARES))
        settings = self.report.settings.get(filter_name)
        made = Histogram(edges=edges, documents=[0] * (len(edges) - 1))
        for side in ("minimum", "maximum"):
            limit = settings.get(to_camel(f"{side}_{measure}")) if isinstance(settings, dict) else None
            limit = limit[index] if isinstance(limit, list) else limit
            setattr(made, side, float(limit) if isinstance(limit, int | float) else None)
        return made

    def part(self, source: str) -> Part:
        """Of a ledger of one unit."""
        samples: dict[str, dict[str, list[tuple[int, Sample]]]] = {}
        for (_, name, reason), found in self._samples.items():
            samples.setdefault(name, {})[reason] = found.held
        return Part(source=self._sources[source], samples=samples, table_left_out=self._table.left_out)

    def add(self, part: Part) -> None:
        """What a unit has: in any number of units all adds up to the same."""
        own = self._sources[part.source.name]
        own.read += part.source.read
        own.read_bytes += part.source.read_bytes
        for said in part.source.filters:
            _add(self._filters[part.source.name, said.name], said)
        for name, reasons in part.samples.items():
            for reason, held in reasons.items():
                samples = self._samples.setdefault((part.source.name, name, reason), _Samples())
                for digest, sample in held:
                    samples.offer(digest, sample)
        self._table.left_out += part.table_left_out

    def finish(self) -> QualityReport:
        for (source, name, reason), samples in self._samples.items():
            self._filters[source, name].reasons[reason].samples = samples.sorted()
        self.report.table_left_out = self._table.left_out
        return self.report


@cache
def _shown(measure: str, index: int | None) -> str:
    return to_camel(measure) + ("" if index is None else f"[{index}]")


def _add(own: FilterReport, said: FilterReport) -> None:
    for name in ("read", "dropped", "dropped_bytes", "edited"):
        setattr(own, name, getattr(own, name) + getattr(said, name))
    for kind, count in said.edits.items():
        own.edits[kind] = own.edits.get(kind, 0) + count
    for name, reason in said.reasons.items():
        known = own.reasons.setdefault(name, Reason())
        known.documents += reason.documents
        known.bytes += reason.bytes
    for name, histogram in said.histograms.items():
        if name not in own.histograms:
            own.histograms[name] = histogram
            continue
        counts = zip(own.histograms[name].documents, histogram.documents, strict=True)
        own.histograms[name].documents = [one + other for one, other in counts]


def rows_of(table: Path) -> Iterator[dict[str, Any]]:
    """Of a table of dropped documents, in their order."""
    with pq.ParquetFile(table) as parquet:
        for batch in parquet.iter_batches(batch_size=TABLE_ROWS):
            yield from batch.to_pylist()


def report_json(report: QualityReport) -> bytes:
    return (report.model_dump_json(by_alias=True, indent=1) + "\n").encode()


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
