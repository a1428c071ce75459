"""Rules that count: Gopher's, C4's, and ours for Japanese. What they count in words counts half the characters of a
script without spaces (data/words.py), so that thresholds from the papers hold for Japanese too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from sys import maxunicode

import numpy as np

from llm_trainer.config import C4Quality, GopherQuality, JapaneseQuality
from llm_trainer.data.quality.text import TERMINAL, Measures, Text, Verdict, judge
from llm_trainer.data.words import CHARACTERS_PER_WORD, DIGIT, LETTER, SOLO, SPACE, Hashes, Mask, words_of

STOP_WORDS = {
    "en": ("the", "be", "to", "of", "and", "that", "have", "with"),  # Gopher's
    "ja": ("の", "に", "は", "を", "が", "と", "で", "も"),  # particles
}
BULLETS = ("•", "‣", "*", "-", "・", "●", "○", "◆", "■", "▪", "※")
ELLIPSES = ("...", "…", "・・・", "。。。")
_BESIDE = "、。，．・「」『』（）【】〈〉《》！？：；〜～…‥"  # marks that stand beside a word without a space
_BOILERPLATE = re.compile(
    r"javascript|terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies"
    r"|利用規約|プライバシーポリシー|クッキー(?:を使用|の使用)|Cookieを(?:使用|利用)",
    re.IGNORECASE,
)
_HEADING = re.compile(r"^#{1,6}(?= )", re.MULTILINE)  # in Markdown, which Gopher's web pages had not
_SENTENCE_END = re.compile(r"[.!?][\"'”’)]*(?=\s|$)|[。！？]+", re.MULTILINE)
_LOREM = re.compile("lorem ipsum", re.IGNORECASE)


def gopher(settings: GopherQuality, text: Text) -> Verdict:
    return judge(settings, gopher_measures(text))


def gopher_measures(text: Text) -> Measures:
    words, count = text.words, text.words.count
    spaced = ~words.solo
    measures: dict[str, float | Sequence[float]] = {"words": count}
    if not words.without_spaces and spaced.any():
        measures["mean_word_length"] = float((words.ends - words.starts)[spaced].mean())
    signs = text.text.count("#") - sum(len(mark) for mark in _HEADING.findall(text.text))
    symbols = signs, max(text.text.count("...") + text.text.count("…"), text.text.count("・・・"))
    measures["symbol_ratio"] = max(symbols) / max(1, count)
    lines = max(1, len(text.lines))
    measures["bullet_lines"] = sum(line.startswith(BULLETS) for line in text.lines) / lines
    measures["ellipsis_lines"] = sum(line.endswith(ELLIPSES) for line in text.lines) / lines
    measures["alphabetic_words"] = _alphabetic(text)
    stop_words = _stop_words(text)
    if stop_words is not None:
        measures["stop_words"] = stop_words
    return measures


def _alphabetic(text: Text) -> float:
    """Share of words with a letter. Words as people see them: what stands between spaces, so that `---` is one; of a
    script without spaces two letters, its marks being beside them.
    """
    codes, kinds = text.words.codes, text.words.kinds
    apart = ((kinds & (SPACE | SOLO)) != 0) | _beside()[codes]
    starts = np.flatnonzero(~apart & np.concatenate([[True], apart[:-1]]))
    letters = np.flatnonzero(((kinds & LETTER) != 0) & ~apart)
    words = np.searchsorted(starts, letters, side="right")
    with_letter = np.count_nonzero(words[1:] != words[:-1]) + min(1, len(words))
    alone = np.count_nonzero(kinds & SOLO) / CHARACTERS_PER_WORD
    return (with_letter + alone) / max(1.0, len(starts) + alone)


@cache
def _beside() -> Mask:
    """Of each code point."""
    found = np.zeros(maxunicode + 1, dtype=np.bool_)
    found[[ord(mark) for mark in _BESIDE]] = True
    return found


def _stop_words(text: Text) -> int | None:
    """How many different ones there are; None of a language whose we don't know."""
    language = "ja" if text.is_japanese else text.language
    if language not in STOP_WORDS:
        return None
    return sum(bool((text.words.hashes == word).any()) for word in _stop_word_hashes(language))


@cache
def _stop_word_hashes(language: str) -> Hashes:
    return np.concatenate([words_of(word).hashes for word in STOP_WORDS[language]])


def c4(settings: C4Quality, text: Text) -> Verdict:
    """Takes out lines, then judges what is left."""
    if not settings.curly_brackets and "{" in text.text:
        return Verdict("curlyBrackets")
    if _LOREM.search(text.text):
        return Verdict("loremIpsum")
    kept = [line for line in text.text.splitlines() if not line.strip() or _is_sentence(settings, line.strip())]
    left = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n")
    removed = len(text.lines) - sum(1 for line in kept if line.strip())
    verdict = judge(settings, {"sentences": float(len(_SENTENCE_END.findall(left)))})
    if not left.strip():
        return Verdict(verdict.reason or "minimumSentences", verdict.measures, detail=verdict.detail or "no line left")
    changed = left if removed else None
    return Verdict(verdict.reason, verdict.measures, changed, verdict.detail, {"lines": removed} if removed else {})


def _is_sentence(settings: C4Quality, line: str) -> bool:
    if settings.terminal_punctuation and (not line.endswith(TERMINAL) or line.endswith(("...", "…"))):
        return False
    if _BOILERPLATE.search(line):
        return False
    return settings.minimum_line_words == 0 or words_of(line).count >= settings.minimum_line_words


def japanese(settings: JapaneseQuality, text: Text) -> Verdict:
    return judge(settings, japanese_measures(text)) if text.is_japanese else Verdict()


def japanese_measures(text: Text) -> Measures:
    codes, kinds = text.words.codes, text.words.kinds
    hiragana = int(((codes >= 0x3041) & (codes <= 0x309F)).sum())
    katakana = int((((codes >= 0x30A1) & (codes <= 0x30FF)) | ((codes >= 0xFF66) & (codes <= 0xFF9F))).sum())
    letters = int(((kinds & (LETTER | DIGIT)) != 0).sum())
    written = int(((kinds & SOLO) != 0).sum())
    return {
        "hiragana": hiragana / max(1, written),
        "katakana": katakana / max(1, written),
        "japanese": written / max(1, letters),
    }
