"""Which language a text is in, by py3langid: a naive Bayes classifier of bytes with its model in the package."""

from __future__ import annotations

from functools import cache
from typing import Any

from llm_trainer.config import LanguageQuality
from llm_trainer.data.quality.text import ANY, Text, Verdict, judge
from llm_trainer.data.words import letters_in

PIECE = 400  # characters: enough to be sure, and few enough that two languages are seen apart
PIECES = 8  # of a document, evenly spread: the time of a long one is bounded
NO_LANGUAGE = "zxx"  # a piece of figures and signs

# One language of the identifier stands for several tags.
SAME = {"nb": "no", "nn": "no", "azb": "az", "uzs": "uz", "wuu": "zh", "yue": "zh"}


def language(settings: LanguageQuality, text: Text) -> Verdict:
    share, seen = language_share(text)
    verdict = judge(settings, {"share": share})
    return Verdict(verdict.reason, verdict.measures, detail=f"{verdict.detail}, found {seen}" if verdict.reason else "")


def language_share(text: Text) -> tuple[float, str]:
    """The share of the text's letters in pieces of its source's language; and the language that most are in. A text
    without letters is of every language.
    """
    if text.language == ANY:
        return 1.0, ANY
    found: dict[str, int] = {}
    for piece in pieces(text.text):
        letters = letters_in(piece)
        name = _identifier().classify(piece)[0] if letters else NO_LANGUAGE
        if name != NO_LANGUAGE:
            found[_same(name)] = found.get(_same(name), 0) + letters
    total = sum(found.values())
    if not total:
        return 1.0, ANY
    return found.get(_same(text.language), 0) / total, max(found, key=lambda name: found[name])


def pieces(text: str) -> list[str]:
    """The text, or of a long one evenly spread parts."""
    if len(text) <= PIECE * PIECES:
        return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
    return [
        text[start : start + PIECE]
        for start in (index * (len(text) - PIECE) // (PIECES - 1) for index in range(PIECES))
    ]


def _same(name: str) -> str:
    return SAME.get(name, name)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
