"""Texts of any length in a place of a certain size."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_operator.api.text import MARK, TEXT_BYTES, cut, shown

TEXTS = st.text(st.characters(codec="utf-8"), max_size=3000)


@given(TEXTS, st.integers(len(MARK.encode()), TEXT_BYTES))
def test_a_text_fits_and_says_if_it_is_not_all(text: str, most: int) -> None:
    made = cut(text, most)
    assert len(made.encode()) <= most
    assert made == shown(text) or (made.endswith(MARK) and shown(text).startswith(made.removesuffix(MARK)))
    assert cut(made, most) == made


def test_no_more_is_cut_than_must_be() -> None:
    assert cut("語" * 341) == "語" * 341
    assert cut("語" * 342) == "語" * 338 + MARK


@given(st.text(st.sampled_from("\x00\x07\x1b\\[]0;31mHJ?\x9b\u202e\u2028 a語\n\t\ud800"), max_size=60))
def test_no_terminal_obeys_what_is_shown(text: str) -> None:
    made = shown(text)
    assert all(char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp") for char in made)
    assert "\u202e" not in made
    assert shown(made) == made
    made.encode()


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a\x1b[1;31mred\x1b[0m b", "ared b"),
        ("\x1b]0;a title\x07said", "said"),
        ("\x1b]8;;http://evil\x1b\\a link\x1b]8;;\x1b\\", "a link"),
        ("\x1b]52;c;cm0gLXJmIH4=\x07copied", "copied"),
        ("\x1bP1$r\x1b\\x", "x"),
        ("over\rwritten\x08\x7f", "over written  "),
        ("two\n\tlines", "two\n\tlines"),
        ("naïve 語 😀", "naïve 語 😀"),
        ("\x1b]never ended", "never ended"),
    ],
)
def test_what_is_shown_of_a_text(text: str, seen: str) -> None:
    assert shown(text) == seen


def test_a_text_of_any_length_is_read_as_far_as_it_could_be_shown() -> None:
    assert cut("\x1b[31m" * 10_000_000 + "x").endswith(MARK)
