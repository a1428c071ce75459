"""Buckets on disk are those of a dictionary, in memory and open files that don't grow with the corpus."""

from __future__ import annotations

import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trainer.data import sorted_keys
from llm_trainer.data.quality import buckets
from llm_trainer.data.quality.buckets import COMPARED, Buckets
from llm_trainer.data.quality.near_duplicates import BANDS, SignatureWriter, bands_and_rows, near_duplicates
from llm_trainer.data.sorted_keys import SortedKeys, shared
from llm_trainer.data.words import words_of


@given(
    st.lists(st.sets(st.integers(0, 300), min_size=2), max_size=12), st.sets(st.integers(0, 300)), st.integers(1, 400)
)
def test_they_are_those_of_a_dictionary(groups: list[set[int]], kept: set[int], part: int) -> None:
    """Some documents stay and are added, others aren't."""
    wanted: dict[int, dict[int, list[int]]] = {}
    for group, members in enumerate(groups):
        for number in members:
            there = [other for other in sorted(members) if other < number and other in kept][:COMPARED]
            wanted.setdefault(number, {})[group] = there
    found: dict[int, list[list[int]]] = {}
    with (
        TemporaryDirectory() as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(buckets, "PART_DOCUMENTS", part)
        with Buckets(Path(name), 301) as made:
            made.fill(
                (np.full(len(group), key, dtype=np.uint64), np.array(sorted(group), dtype=np.int64))
                for key, group in enumerate(groups)
            )
            for number, own in made.documents():
                found[number] = [made.members(bucket) for bucket in own]
                if number in kept:
                    for bucket, others in zip(own, found[number], strict=True):
                        made.add(bucket, number, len(others))
    assert list(found) == sorted(wanted)
    assert {number: sorted(each) for number, each in found.items()} == {
        number: sorted(each.values()) for number, each in wanted.items()
    }


def test_memory_does_not_grow_with_the_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "PART_DOCUMENTS", 64)
    monkeypatch.setattr(sorted_keys, "RUN", 64)
    monkeypatch.setattr(sorted_keys, "AT_A_TIME", 256)

    def peak(documents: int) -> int:
        """Each is there twice, of few words."""
        folder, work = tmp_path / str(documents), tmp_path / f"{documents}-work"
        folder.mkdir()
        work.mkdir()
        writer = SignatureWriter(folder, 0.8, 5)
        for number in range(documents):
            writer.add(number, words_of(" ".join(f"w{number % (documents // 2)}x{at}" for at in range(8))))
        writer.close()
        tracemalloc.start()
        try:
            assert sum(1 for _ in near_duplicates([folder], [0], 0.8, work)) == documents // 2
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(128)  # what is made once
    assert peak(2048) < 1.3 * peak(512)


@pytest.fixture
def few_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_files")
def test_more_units_than_a_process_may_open_files(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(300)]
    work = tmp_path / "work"
    work.mkdir()
    for number, folder in enumerate(folders):
        folder.mkdir()
        writer, keys = SignatureWriter(folder, 0.8, 5), SortedKeys(folder, "digests")
        writer.add(0, words_of(f"one two three four five six seven eight {number // 2}"))
        keys.add(0, [number // 2])
        writer.close()
        keys.close()
    offsets = list(range(len(folders)))
    assert [found.number for found in near_duplicates(folders, offsets, 0.8, work)] == offsets[1::2]
    [(_, numbers)] = shared(folders, offsets, "digests")
    assert numbers.tolist() == offsets
    assert bands_and_rows(0.8)[0] == len(list(shared(folders, offsets, BANDS, bands_and_rows(0.8)[0])))
