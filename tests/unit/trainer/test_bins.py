"""Rows that share places: none is lost, none is cut, and every process has as much to do as the others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_trainer.data.bins import best_fit, even, shares

LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=80)


@given(LENGTHS)
def test_every_row_is_in_one_bin_that_holds_it(lengths: list[int]) -> None:
    bins = best_fit(lengths, 64)
    assert sorted(place for places in bins for place in places) == list(range(len(lengths)))
    assert all(sum(lengths[place] for place in places) <= 64 for places in bins)
    assert len(bins) <= 2 * -(-sum(lengths) // 64), "two bins that are half empty would have been one"


def test_best_fit_finds_the_smallest_room() -> None:
    assert best_fit([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]
    assert best_fit([10, 10], 10) == [[0], [1]]


def test_even_bins() -> None:
    assert even([6, 5, 4, 3, 2], 10, 2) == [[0, 3], [1, 2]] or even([6, 5, 4, 3, 2], 10, 2) is None
    assert even([9, 8, 2, 1], 10, 2) == [[0, 3], [1, 2]]
    assert even([9, 9, 9], 10, 2) is None


@given(LENGTHS, st.integers(1, 5), st.integers(1, 4))
def test_shares(lengths: list[int], processes: int, size: int) -> None:
    made = shares(lengths, 64, processes, size)
    assert len(made) == processes
    assert len({len(micro_batches) for micro_batches in made}) == 1, "a process would wait for one that is done"
    bins = [row for micro_batches in made for rows in micro_batches for row in rows]
    assert sorted(place for row in bins for place in row) == list(range(len(lengths)))
    assert all(sum(lengths[place] for place in row) <= 64 for row in bins)
    assert all(len(rows) <= size for micro_batches in made for rows in micro_batches)
    fewest = -(-len(best_fit(lengths, 64)) // (processes * size))
    assert len(made[0]) == fewest
    empty = sum(not rows for micro_batches in made for rows in micro_batches)
    assert empty == 0 or len(lengths) < processes * len(made[0])


@given(LENGTHS, st.integers(1, 5))
def test_without_packing_there_would_be_no_fewer_passes(lengths: list[int], processes: int) -> None:
    assert len(shares(lengths, 64, processes, 1)[0]) <= -(-len(lengths) // processes)
