"""The filters in their order. Each is a pure function of one document; another one is a line here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from llm_trainer.config import Quality
from llm_trainer.data.quality.contamination import read_evaluations
from llm_trainer.data.quality.language import language
from llm_trainer.data.quality.personal import personal_data
from llm_trainer.data.quality.repetition import repetition
from llm_trainer.data.quality.rules import c4, gopher, japanese
from llm_trainer.data.quality.text import Filter, Text, Verdict

NEAR_DUPLICATES = "nearDuplicates"  # the last: it looks at all documents together

Filters = dict[str, Filter]


def filters_of(quality: Quality, volumes_root: str) -> Filters:
    """Those that the user has named, by their names in the spec. Reads the evaluation sets."""
    found: Filters = {}
    if quality.personal_data:
        found["personalData"] = partial(personal_data, quality.personal_data)
    if quality.language:
        found["language"] = partial(language, quality.language)
    if quality.gopher:
        found["gopher"] = partial(gopher, quality.gopher)
    if quality.c4:
        found["c4"] = partial(c4, quality.c4)
    if quality.repetition:
        found["repetition"] = partial(repetition, quality.repetition)
    if quality.japanese:
        found["japanese"] = partial(japanese, quality.japanese)
    if quality.decontamination:
        found["decontamination"] = read_evaluations(quality.decontamination, volumes_root).filter
    return found


def judged(filters: Filters, text: Text) -> Iterator[tuple[str, Text, Verdict]]:
    """Each filter's verdict and the text as it is after it, to the first that drops the document."""
    for name, judge in filters.items():
        verdict = judge(text)
        if verdict.text is not None and verdict.reason is None:
            text = Text(verdict.text, text.language)
        yield name, text, verdict
        if verdict.reason is not None:
            return


def edited(quality: Quality, text: Text) -> Text:
    """A document that stays, as it becomes: only two filters change one, and neither looks at what others say."""
    if quality.personal_data:
        text = _changed(text, personal_data(quality.personal_data, text))
    if quality.c4:
        text = _changed(text, c4(quality.c4, text))
    return text


def _changed(text: Text, verdict: Verdict) -> Text:
    return text if verdict.text is None else Text(verdict.text, text.language)
