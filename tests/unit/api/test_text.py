"""Texts of any length in a place of a certain size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_operator.api.text import MARK, TEXT_BYTES, cut

TEXTS = st.text(st.characters(codec="utf-8"), max_size=3000)


@given(TEXTS, st.integers(len(MARK.encode()), TEXT_BYTES))
def test_a_text_fits_and_says_if_it_is_not_all(text: str, most: int) -> None:
    shown = cut(text, most)
    assert len(shown.encode()) <= most
    assert shown == text or (shown.endswith(MARK) and text.startswith(shown.removesuffix(MARK)))
    assert cut(shown, most) == shown


def test_no_more_is_cut_than_must_be() -> None:
    assert cut("語" * 341) == "語" * 341
    assert cut("語" * 342) == "語" * 338 + MARK
