"""Which documents of the corpus stay: each unit by all filters, then near duplicates over all of them.

A document is known by its number in its unit, or among those of all units. Memory: a byte for each of a unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from llm_trainer.config import Quality, Source
from llm_trainer.data.corpus import Document
from llm_trainer.data.documents import Choices, Corpus, Progress, TextWriter
from llm_trainer.data.quality.filters import NEAR_DUPLICATES, Filters, edited, judged
from llm_trainer.data.quality.near_duplicates import SignatureWriter, near_duplicates
from llm_trainer.data.quality.page import page
from llm_trainer.data.quality.report import DroppedTable, Ledger, Part, QualityReport, report_json, rows_of
from llm_trainer.data.quality.text import Text
from llm_trainer.runtime.errors import DataError

FOLDER = "quality"  # beside the shards
REFUSED = "quality-report"  # beside the data's folder, which isn't there when nothing was left
REPORT, TABLE, PAGE = "report.json", "dropped.parquet", "report.html"
CHOICES, PART, NEAR = "choices", "part.json", "near"  # what is kept of a unit, and of all

EQUAL, KEPT, DROPPED, NEAR_DUPLICATE = 0, 1, 2, 3  # what becomes of a document
NEAR_ENTRY = np.dtype([("number", "<i8"), ("of", "<i8"), ("similarity", "<f8")])


def language_of(source: Source) -> str:
    """The first part of its BCP 47 tag."""
    return source.language.split("-")[0].lower()


def settings_of(quality: Quality) -> dict[str, object]:
    """As the report has them."""
    return quality.model_dump(mode="json", by_alias=True, exclude_none=True)


def filter_names(quality: Quality, filters: Filters) -> list[str]:
    return [*filters, NEAR_DUPLICATES] if quality.near_duplicates else [*filters]


def judge_unit(
    corpus: Corpus, unit: int, choices: Choices, quality: Quality, filters: Filters, texts: float, folder: Path,
    progress: Progress,
) -> None:  # fmt: skip
    """What the filters say of a unit's documents but those that are equal to others, EQUAL in `choices`.

    `texts`: the share of them that the tokenizer is trained on.
    """
    source = corpus.units[unit].source
    name, language, near = source.name, language_of(source), quality.near_duplicates
    writer = TextWriter(folder, texts)
    signatures = SignatureWriter(folder, near.threshold, near.ngram) if near else None
    with DroppedTable(folder / TABLE) as table:
        ledger = Ledger(settings_of(quality), table)
        found = ledger.source(source, filter_names(quality, filters))
        for number, document in enumerate(corpus.read_again(unit)):
            progress(document.size)
            if choices[number] == EQUAL:
                continue
            found.read += 1
            found.read_bytes += document.size
            text = Text(document.text, language)
            for each, changed, verdict in judged(filters, text):
                text = changed
                ledger.take(name, each, document, verdict)
                if verdict.reason is not None:
                    choices[number] = DROPPED
            if choices[number] == DROPPED:
                continue
            writer.offer(number, document, text.text)
            if signatures:
                found.filters[-1].read += 1
                signatures.add(number, text.words)
    writer.close()
    if signatures:
        signatures.close()
    choices.tofile(folder / CHOICES)
    (folder / PART).write_text(ledger.part(name).model_dump_json(), encoding="utf-8")


def write_near(corpus: Corpus, quality: Quality, judged_units: Sequence[Path], folder: Path) -> None:
    """Near duplicates over all units, in order."""
    with (folder / NEAR).open("wb") as stream, TemporaryDirectory(dir=folder) as work:
        wanted = quality.near_duplicates
        for found in near_duplicates(judged_units, corpus.offsets, wanted.threshold, Path(work)) if wanted else ():
            stream.write(np.array([(found.number, found.of, found.similarity)], dtype=NEAR_ENTRY).tobytes())


def choices_of(
    corpus: Corpus, unit: int, judged_unit: Path, near: NDArray[np.void]
) -> tuple[Choices, NDArray[np.void]]:
    """Of each document of a unit, and what is said of its near duplicates. `near`: of all units."""
    choices = np.fromfile(judged_unit / CHOICES, dtype=np.uint8)
    first = corpus.offsets[unit]
    begin, end = np.searchsorted(near["number"], [first, first + len(choices)])
    choices[near["number"][begin:end] - first] = NEAR_DUPLICATE
    return choices, near[begin:end]


def kept_documents(
    quality: Quality | None, documents: Iterator[Document], choices: Choices, language: str
) -> Iterator[Document]:
    """Those that stay, as they become."""
    for number, document in enumerate(documents):
        if choices[number] != KEPT:
            continue
        text = edited(quality, Text(document.text, language)).text if quality else document.text
        yield document if text == document.text else replace(document, text=text, size=len(text.encode()))


def take_down_near(
    corpus: Corpus, unit: int, near: NDArray[np.void], quality: Quality, documents: Iterator[Document], folder: Path
) -> Iterator[Document]:
    """The same documents; those that are near duplicates go into the report's part in `folder`."""
    source = corpus.units[unit].source
    said = {int(entry["number"]) - corpus.offsets[unit]: entry for entry in near}
    with DroppedTable(folder / TABLE) as table:
        ledger = Ledger(settings_of(quality), table)
        ledger.source(source, [NEAR_DUPLICATES])
        for number, document in enumerate(documents):
            if number in said:
                place = corpus.place(int(said[number]["of"]))
                detail = f"Jaccard {said[number]['similarity']:.3f} with {place}"
                ledger.drop(source.name, NEAR_DUPLICATES, document, "threshold", detail)
            yield document
    (folder / PART).write_text(ledger.part(source.name).model_dump_json(), encoding="utf-8")


def write_report(
    corpus: Corpus,
    quality: Quality,
    filters: Sequence[str],
    parts: Sequence[Path],
    folder: Path,
    kept: Mapping[str, tuple[int, int, int]],
) -> QualityReport:
    """Of all units, from the folders of their parts. `kept` are the documents, bytes and tokens of each source."""
    with DroppedTable(folder / TABLE) as table:
        ledger = Ledger(settings_of(quality), table)
        for unit in corpus.units:
            ledger.source(unit.source, filters)
        for part in parts:
            ledger.add(Part.model_validate_json((part / PART).read_bytes()))
            for row in rows_of(part / TABLE):
                table.add_row(row)
        report = ledger.finish()
    for source in report.sources:
        source.damaged = [each.message for each in corpus.damaged(source.name)]
        source.kept, source.kept_bytes, source.kept_tokens = kept.get(source.name, (0, 0, 0))
    (folder / REPORT).write_bytes(report_json(report))
    (folder / PAGE).write_text(page(report), encoding="utf-8")
    return report


def nothing_left(report: QualityReport) -> NothingLeftError:
    read = sum(source.read for source in report.sources)
    worst = ", ".join(f"{reason} {count:,}" for reason, count in list(report.dropped.items())[:5])
    return NothingLeftError(
        f"the filters of spec.data.quality dropped all {read:,} documents of the corpus: {worst}; change these "
        f"thresholds, or leave filters out. The report with samples is {REFUSED}/{PAGE} in the run's folder"
    )


class NothingLeftError(DataError):
    """Every document was dropped; the report is to be kept."""
