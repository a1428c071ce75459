"""What must hold of spec.data beyond its types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from llm_operator.api.training import LLMTrainingSpec
from llm_trainer.config import LANGUAGES, Data, GopherQuality, is_remote

DATA = "spec.data"


def data_problems(spec: LLMTrainingSpec) -> Iterator[str]:
    if spec.data is None:
        return
    yield from source_problems(spec.data)
    quality = spec.data.quality
    if quality and quality.language:
        yield from language_problems(spec.data)
    if quality and quality.gopher:
        yield from order_problems(quality.gopher)


def source_problems(data: Data) -> Iterator[str]:
    for name, count in Counter(source.name for source in data.sources).items():
        if count > 1:
            yield f"{DATA}.sources: {count} sources are named {name!r}; give each its own name"
    first: dict[tuple[str, str], str] = {}
    for index, source in enumerate(data.sources):
        if source.stream and not is_remote(source.uri):
            yield (
                f"{DATA}.sources[{index}].stream: {source.uri} lies on a claim, and is read there anyway; remove stream"
            )
        other = first.setdefault((source.uri, source.text_field), source.name)
        if other != source.name:
            yield (
                f"{DATA}.sources[{index}].uri: {source.uri} is that of the source {other!r} too, and each of its "
                "documents counts once; remove one of them"
            )


def language_problems(data: Data) -> Iterator[str]:
    """The identifier must know the language that a source names."""
    for index, source in enumerate(data.sources):
        path = f"{DATA}.sources[{index}].language"
        if not source.language:
            yield f"{path}: is required by {DATA}.quality.language; set it to a BCP 47 tag, such as ja"
        elif source.language.split("-")[0].lower() not in LANGUAGES:
            yield (
                f"{path}: {source.language!r} is no language that {DATA}.quality.language can tell; remove the filter, "
                f"or name one of {', '.join(sorted(LANGUAGES))}"
            )


def order_problems(gopher: GopherQuality) -> Iterator[str]:
    for least, most, name in (
        (gopher.minimum_words, gopher.maximum_words, "Words"),
        (gopher.minimum_mean_word_length, gopher.maximum_mean_word_length, "MeanWordLength"),
    ):
        if least > most:
            yield (
                f"{DATA}.quality.gopher.minimum{name}: is {least:g}, more than maximum{name}, {most:g}, so that no "
                "document would stay; correct one of them"
            )
