"""A document as the filters see it, and what one says of it. A verdict follows from one document and the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

from pydantic.alias_generators import to_camel

from llm_trainer.config import Settings
from llm_trainer.data.words import Words, words_of

Measures = Mapping[str, float | Sequence[float]]
ANY = ""  # the language of a source that names none

_ENDS = "。！？…」』）】"
TERMINAL = (".", "!", "?", '"', "”", "’", *_ENDS)  # C4's, and those of Japanese


@dataclass(frozen=True)
class Text:
    """One document, with what several filters ask of it computed once."""

    text: str
    language: str = ANY  # first part of the source's BCP 47 tag

    @cached_property
    def words(self) -> Words:
        return words_of(self.text)

    @cached_property
    def lines(self) -> list[str]:
        """Without blank ones."""
        return [stripped for line in self.text.splitlines() if (stripped := line.strip())]

    @cached_property
    def is_japanese(self) -> bool:
        """By the source, else by its kana."""
        if self.language != ANY:
            return self.language == "ja"
        codes = self.words.codes
        kana = int(((codes >= 0x3041) & (codes <= 0x30FA)).sum())
        return kana * 10 > len(codes)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a filter says. `reason` is the threshold that was passed, as in the spec; None: the document stays."""

    reason: str | None = None
    measures: Measures = field(default_factory=dict)
    text: str | None = None  # what the document becomes, if it changes
    detail: str = ""  # evidence, for the report
    edits: Mapping[str, int] = field(default_factory=dict)  # what was replaced or taken out, by kind


Filter = Callable[[Text], Verdict]


def first_passed(settings: Settings, measures: Measures) -> tuple[str | None, str]:
    """The first threshold that a measure passes, as a user writes it, and the figures; a measure has the name of its
    thresholds: `words` those of `minimum_words` and `maximum_words`. What could not be measured passes none.
    """
    for name, side, measure in _thresholds(type(settings)):
        if measure not in measures:
            continue
        limits, values = several(getattr(settings, name)), several(measures[measure])
        for index, (limit, value) in enumerate(zip(limits, values, strict=True)):
            if value < limit if side == "minimum" else value > limit:
                place = f"[{index}]" if len(limits) > 1 else ""
                return f"{to_camel(name)}{place}", f"{value:.4g} ({side} {limit:g})"
    return None, ""


def judge(settings: Settings, measures: Measures) -> Verdict:
    reason, detail = first_passed(settings, measures)
    return Verdict(reason, measures, detail=detail)


@cache
def _thresholds(settings: type[Settings]) -> list[tuple[str, str, str]]:
    """The names of fields, each with its side and measure."""
    parts = [(name, *name.partition("_")[::2]) for name in settings.model_fields]
    return [(name, side, measure) for name, side, measure in parts if side in ("minimum", "maximum")]


def several(value: float | Sequence[float]) -> Sequence[float]:
    return (value,) if isinstance(value, int | float) else value
