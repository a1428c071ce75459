from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from llm_trainer.data.quality import near_duplicates
from llm_trainer.data.quality.near_duplicates import (
    PERMUTATIONS,
    SignatureWriter,
    bands_and_rows,
    features_of,
    jaccard,
)
from llm_trainer.data.words import words_of

from .planted import NGRAM, planted, similarity

THRESHOLD = 0.8


def found_in(folder: Path, texts: list[str], threshold: float = THRESHOLD, ngram: int = NGRAM) -> dict[int, int]:
    """In two units, the second of which begins in the middle."""
    offsets = [0, len(texts) // 2]
    folders = [folder / str(offset) for offset in offsets]
    for unit, part in zip(folders, (texts[: offsets[1]], texts[offsets[1] :]), strict=True):
        unit.mkdir(parents=True, exist_ok=True)
        writer = SignatureWriter(unit, threshold, ngram)
        for number, text in enumerate(part):
            writer.add(number, words_of(text))
        writer.close()
    with TemporaryDirectory(dir=folder) as work:
        found = near_duplicates.near_duplicates(folders, offsets, threshold, Path(work))
        return {each.number: each.of for each in found}


@pytest.mark.parametrize("language", ["en", "ja"])
def test_planted_duplicates_are_found_and_nothing_else(language: str, tmp_path: Path) -> None:
    made = planted(language, documents=5000, seed=7)
    similar = {copy for copy, _, value in made.copies if value >= THRESHOLD}
    assert 300 < len(similar) < 700, "the seed gives copies on both sides of the threshold"
    found = found_in(tmp_path, made.texts)
    original = {copy: of for copy, of, _ in made.copies}
    # Two copies of one document may be nearer to each other than to it.
    right = {copy for copy, of in found.items() if copy in similar or original.get(copy) == original.get(of)}
    recall = len(similar & set(found)) / len(similar)
    precision = len(right) / len(found)
    assert recall >= 0.95, f"recall {recall:.3f}"
    assert precision >= 0.98, f"precision {precision:.3f}"


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_follow_from_the_threshold(threshold: float) -> None:
    bands, rows = bands_and_rows(threshold)
    assert bands * rows <= PERMUTATIONS
    chance = 1 - (1 - threshold**rows) ** bands
    assert chance >= near_duplicates.CERTAINTY
    further = rows + 1
    if further <= PERMUTATIONS:
        assert 1 - (1 - threshold**further) ** (PERMUTATIONS // further) < near_duplicates.CERTAINTY


def test_the_first_is_kept_and_who_is_like_a_dropped_one_alone_stays(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(200)]
    first, last = [*words], [*words]
    middle = [*words[:190], *(f"new{number}" for number in range(10))]
    last = [*(f"old{number}" for number in range(10)), *middle[10:]]
    assert similarity(first, middle) >= THRESHOLD
    assert similarity(middle, last) >= THRESHOLD
    assert similarity(first, last) < 0.85
    found = found_in(tmp_path, [" ".join(text) for text in (first, middle, last)], threshold=0.85)
    assert found == {1: 0}


def test_texts_that_have_nothing_to_compare_by_stay(tmp_path: Path) -> None:
    assert found_in(tmp_path, ["!!!", "???", "---", "one", "two", "一", "二"]) == {}


def test_short_texts_are_compared_as_a_whole(tmp_path: Path) -> None:
    assert found_in(tmp_path, ["Good morning", "good  morning!", "good evening"]) == {1: 0}


def test_width_and_case_make_no_other_text(tmp_path: Path) -> None:
    text = "ＡＢＣ株式会社の２０２６年度の決算は、売上が前年を大きく上回りました。"
    assert found_in(tmp_path, [text, text.replace("ＡＢＣ", "abc").replace("２０２６", "2026")]) == {1: 0}


def test_an_empty_corpus_has_none(tmp_path: Path) -> None:
    assert found_in(tmp_path, []) == {}


def test_a_thousand_like_each_other_cost_no_square(tmp_path: Path) -> None:
    """All share their buckets: each is compared with what was kept, not with all."""
    template = "this page could not be found on the server please go back to where you came from and try it again"
    found = found_in(tmp_path, [f"{template} later {number}" for number in range(3000)], threshold=0.7)
    assert set(found.values()) == {0}
    assert len(found) == 2999


def test_a_long_text_is_compared_by_a_sketch(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.unique(np.random.default_rng(5).integers(0, 1 << 32, 120_000, dtype=np.uint32))
    drawn = np.random.default_rng(6).permutation(drawn)[:110_000]
    one, other = drawn[:100_000], np.concatenate([drawn[:90_000], drawn[100_000:]])
    exact = 90_000 / 110_000
    monkeypatch.setattr(near_duplicates, "SKETCH", 1 << 14)
    sketches = [np.sort(each)[: 1 << 14] for each in (one, other)]
    assert jaccard(*sketches) == pytest.approx(exact, abs=0.015)


def test_features_are_those_of_the_words(tmp_path: Path) -> None:
    """By the code and by sets of strings, the same similarity."""
    one = [f"word{number}" for number in range(17)]
    other = [*one[:9], "cat", *one[10:]]
    found = [
        np.unique((features_of(words_of(" ".join(text)), NGRAM) >> np.uint64(32)).astype(np.uint32))
        for text in (one, other)
    ]
    assert jaccard(*found) == pytest.approx(similarity(one, other))
