from __future__ import annotations

import unicodedata
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trainer.config import Data
from llm_trainer.data.corpus import Document, normalise, split_of
from llm_trainer.data.documents import Corpus, UnitRecord, read_unit, write_kept
from llm_trainer.data.units import find_sources, units_of
from llm_trainer.runtime.errors import DataError

from .conftest import WriteLines, corpus_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def read(data: Data, volumes: Path) -> tuple[list[Document], list[UnitRecord]]:
    """What stays of the corpus, and what each unit, here a source, has beside that."""
    units = units_of(data, find_sources(data, str(volumes), {}))
    with TemporaryDirectory() as folder:
        folders = [Path(folder) / unit.key for unit in units]
        for unit, made in zip(units, folders, strict=True):
            made.mkdir()
            read_unit(unit, data, made, 0, lambda size: None)
        corpus = Corpus.of(data, units, folders)
        write_kept(corpus, Path(folder))
        documents = [
            document
            for number in range(len(units))
            for document, kept in zip(corpus.read_again(number), corpus.kept(Path(folder), number), strict=True)
            if kept
        ]
    return documents, list(corpus.records)


def test_equal_texts_are_kept_once_across_sources_and_spellings(volumes: Path, write_lines: WriteLines) -> None:
    composed, decomposed = "プログラム", unicodedata.normalize("NFD", "プログラム")
    assert composed != decomposed
    write_lines("a.jsonl", [{"text": decomposed}, {"text": "x"}, {"text": " \n"}])
    write_lines("b.jsonl", [{"text": composed}, {"text": "x"}, {"text": "x "}])
    documents, (first, second) = read(corpus_of("a.jsonl", "b.jsonl"), volumes)
    assert [document.text for document in documents] == [composed, "x", "x "]
    assert (first.documents, first.empty) == (2, 1)
    assert (second.documents, second.empty) == (3, 0)
    assert documents[0].size == len(composed.encode())


def test_documents_that_are_not_utf8_are_skipped_up_to_the_limit(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("a.jsonl", [{"text": "1"}, b'{"text": "\xff"}', {"text": "2"}, {"text": "3"}])
    documents, (counts,) = read(corpus_of("a.jsonl", max_invalid_fraction=0.25), volumes)
    assert len(documents) == 3
    assert counts.invalid == 1
    with pytest.raises(DataError) as error:
        read(corpus_of("a.jsonl", max_invalid_fraction=0.24), volumes)
    assert str(error.value) == (
        "source 'a': 1 of 4 documents are not UTF-8, more than spec.data.maxInvalidFraction (0.24) allows; "
        "the first is pvc://corpus/a.jsonl, line 2. Convert the files to UTF-8 (iconv -f ENCODING -t UTF-8) or "
        "raise the limit."
    )


def test_a_source_without_files_is_named(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("a.jsonl", [{"text": "1"}])
    with pytest.raises(DataError) as error:
        read(corpus_of("a.jsonl", "b*.txt"), volumes)
    assert str(error.value).startswith("spec.data.sources[1].uri (source 'b'): no file matches pvc://corpus/b*.txt")


@given(TEXT)
def test_normalised_text_is_nfc_and_stays_as_it_is(text: str) -> None:
    assert normalise(text) == unicodedata.normalize("NFC", text)
    assert normalise(normalise(text)) == normalise(text)


@pytest.fixture(scope="session")
def claim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    (folder / "corpus").mkdir()
    return folder


@given(texts=st.lists(TEXT.filter(str.strip), min_size=1), added=st.lists(TEXT), seed=st.integers(0, 2**40))
def test_the_split_of_a_document_stays_when_others_are_added(
    claim: Path, texts: list[str], added: list[str], seed: int
) -> None:
    import json

    def splits(texts: list[str]) -> dict[str, str]:
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (claim / "corpus/a.jsonl").write_text(lines, encoding="utf-8")
        documents, _ = read(corpus_of("a.jsonl", validation_fraction=0.3, seed=seed), claim)
        assert len({document.text for document in documents}) == len(documents)
        return {document.text: document.split for document in documents}

    before, after = splits(texts), splits([*added, *texts])
    assert before.items() <= after.items()


def test_the_held_out_share_is_the_asked_one_and_follows_the_seed() -> None:
    digests = [number.to_bytes(16, "little") for number in range(4000)]
    held_out = {seed: {d for d in digests if split_of(d, seed, 0.1) == "validation"} for seed in (0, 1)}
    for chosen in held_out.values():
        assert 320 < len(chosen) < 480  # 400 ± 4 standard deviations of 19; the hashes are fixed
    assert len(held_out[0] & held_out[1]) < 80


def test_marks_without_end_take_no_time_without_end() -> None:
    """By one call of unicodedata it would be half an hour: marks are sorted by insertion."""
    text = "a" + "\u0301\u0323" * 500_000
    assert len(normalise(text)) == len(text)
    few = "a" + "\u0301\u0323" * 100
    assert normalise(few) == unicodedata.normalize("NFC", few)
