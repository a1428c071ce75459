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
    flat = [rows for micro_batches in made for rows in micro_batches]
    first = [int(place) for rows in flat for place in rows.places[~rows.again]]
    assert sorted(first) == list(range(len(lengths))), "each once"
    assert sum(rows.again.sum() for rows in flat) < size * processes, "more rows come again than fill a micro-batch"
    assert all(len(rows.places) == len(rows.again) == size for rows in flat)
    assert len({len(micro_batches) for micro_batches in made}) == 1


def test_what_is_long_comes_together() -> None:
    made = by_length(np.arange(8), np.array([9, 1, 8, 2, 7, 3, 6, 4]), 2, 2)
    assert [[rows.places.tolist() for rows in micro_batches] for micro_batches in made] == [
        [[0, 2], [7, 5]],
        [[4, 6], [3, 1]],
    ]
