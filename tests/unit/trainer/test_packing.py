"""What documents cost that have rows of their own."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_trainer.models.packing import SHORTEST, unpack

Lengths = st.lists(st.integers(1, 300), min_size=1, max_size=40)


def batch(lengths: list[int], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of documents one after the other, each cut where its row ends."""
    total = -(-sum(lengths) // length) * length
    positions = torch.cat([torch.arange(n) for n in [*lengths, total - sum(lengths)]]).view(-1, length)
    return torch.arange(1, total + 1).view(-1, length), positions


@given(Lengths, st.integers(8, 512))
def test_every_token_has_its_place_and_padding_is_bounded(lengths: list[int], length: int) -> None:
    tokens, positions = batch(lengths, length)
    found = list(unpack(tokens, positions))
    made = torch.zeros_like(tokens)
    for part in found:
        made = part.put(part.tokens, made)
        assert torch.equal(part.spread(tokens, 0), part.tokens * part.there)
    assert torch.equal(made, tokens)
    documents = sum(len(part.tokens) for part in found)
    assert sum(part.tokens.numel() for part in found) <= 2 * tokens.numel() + SHORTEST * documents


def test_one_long_document_does_not_stretch_the_others() -> None:
    """8,192 tokens were 421 rows of 4,000 before."""
    tokens, positions = batch([4000, *[10] * 419, 2], 8192)
    assert sum(part.tokens.numel() for part in unpack(tokens, positions)) < 2 * 8192


@given(Lengths, Lengths)
def test_ranks_make_equally_many_passes(one: list[int], other: list[int]) -> None:
    """As ZeRO-3 needs it, whatever their documents are."""
    first, second = (list(unpack(*batch(lengths, 256), every_length=True)) for lengths in (one, other))
    assert len(first) == len(second) == 4
    nothing = torch.zeros_like(batch(one, 256)[0])
    for part in first:
        nothing = part.put(torch.ones_like(part.tokens), nothing)
    assert bool((nothing == 1).all())
