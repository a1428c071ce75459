"""Rows of a step by their lengths: none is lost, and all micro-batches have equally many."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llm_trainer.stages.grouped_batches import by_length


@given(st.lists(st.integers(1, 99), min_size=1, max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_every_row_has_a_place(lengths: list[int], size: int, processes: int) -> None:
    places = np.random.default_rng(0).permutation(len(lengths))
    made = by_length(places, np.array(lengths), size, processes)
    assert len(made) == processes
    flat = [int(place) for micro_batches in made for rows in micro_batches for place in rows]
    assert set(flat) == set(range(len(lengths)))
    assert len(flat) - len(lengths) < size * processes, "more rows come again than fill a micro-batch"
    assert all(len(rows) == size for micro_batches in made for rows in micro_batches)
    assert len({len(micro_batches) for micro_batches in made}) == 1


def test_what_is_long_comes_together() -> None:
    made = by_length(np.arange(8), np.array([9, 1, 8, 2, 7, 3, 6, 4]), 2, 2)
    assert [[rows.tolist() for rows in micro_batches] for micro_batches in made] == [
        [[0, 2], [7, 5]],
        [[4, 6], [3, 1]],
    ]
