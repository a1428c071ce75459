"""Pods of one place follow one another in the ranks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trainer.runtime.topology import ranks_of


@pytest.mark.parametrize(
    ("places", "ranks"),
    [
        (["", "", ""], [0, 1, 2]),
        (["a", "a", "a"], [0, 1, 2]),
        (["a", "b", "a", "b"], [0, 2, 1, 3]),
        (["b", "a", "b"], [0, 2, 1]),
        (["", "a", "", "a"], [0, 1, 3, 2]),
    ],
)
def test_the_order(places: list[str], ranks: list[int]) -> None:
    assert ranks_of(places) == ranks


@given(st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=40))
def test_any_places(places: list[str]) -> None:
    ranks = ranks_of(places)
    assert sorted(ranks) == list(range(len(places)))
    assert ranks[0] == 0, "the first pod holds the store, and tells the operator"
    by_rank = [places[ranks.index(rank)] for rank in range(len(places))]
    for place in set(places) - {""}:
        seen = [rank for rank, found in enumerate(by_rank) if found == place]
        assert seen == list(range(seen[0], seen[-1] + 1)), by_rank
