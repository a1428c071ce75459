from __future__ import annotations

import pytest

from llm_trainer.data.words import WITHOUT_SPACES, Words, words_of


def tokens(words: Words) -> list[str]:
    return [
        words.codes[start:end].astype("<u4").tobytes().decode("utf-32-le")
        for start, end in zip(words.starts, words.ends, strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The GIMP's 3 menus.", ["the", "gimp", "s", "3", "menus"]),
        ("画像を開く", ["画", "像", "を", "開", "く"]),
        ("GIMP2で画像", ["gimp2", "で", "画", "像"]),
        ("データー、時々。", ["デ", "ー", "タ", "ー", "時", "々"]),
        ("ＡＢｃ１２", ["abc12"]),
        ("한국어 문서", ["한국어", "문서"]),
        ("ภาษา", ["ภ", "า", "ษ", "า"]),
        ("café", ["café"]),
        ("... --- !?", []),
        ("", []),
        ("𠮷野家", ["𠮷", "野", "家"]),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens(words_of(text)) == expected


def test_two_characters_without_spaces_are_a_word() -> None:
    assert words_of("画像を開く一つ").count == 3.5
    assert words_of("open the image").count == 3
    assert words_of("画像 open").count == 2
    assert words_of("画像を開くにはopenを使う").without_spaces
    assert not words_of("to open 画像 use this").without_spaces


def test_an_ngram_has_the_same_hash_wherever_it_stands() -> None:
    one, other = words_of("a b c d e"), words_of("in front of: A, B; (c) d! 画")
    assert set(one.ngrams(4).tolist()) & set(other.ngrams(4).tolist()) == {one.ngrams(4)[0]}
    assert not len(one.ngrams(6))


def test_order_and_boundaries_tell_ngrams_apart() -> None:
    texts = ["ab c", "a bc", "c ab", "abc", "a b c", "画像", "像画"]
    assert len({tuple(words_of(text).hashes.tolist()) for text in texts}) == len(texts)


def test_hashes_are_the_same_on_every_machine() -> None:
    """What is dropped follows from them: another value here changes prepared data everywhere."""
    assert words_of("near duplicate 文").hashes.tolist() == [
        89747673065344137,
        5525140538157716609,
        1858060446808289680,
    ]


def test_the_long_text_of_one_word_is_one_token() -> None:
    assert tokens(words_of("x" * 200_000)) == ["x" * 200_000]


def test_ranges_are_in_order() -> None:
    assert all(first <= last for first, last in WITHOUT_SPACES)
