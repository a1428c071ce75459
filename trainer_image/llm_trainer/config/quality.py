"""Which documents of the corpus are good enough, as a user writes it. A filter is off until it is named; `{}` is its
defaults, which are those of the papers.

Where a threshold counts words, two characters of a script without spaces (Japanese, Chinese, Thai) are a word.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llm_trainer.config.base import AnyUri, Settings

# What the identifier (py3langid) knows. A test compares it with the model.
LANGUAGES = frozenset(
    """
    ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa fi fo fr fuv
    fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab kik kk km kn ko ku ky
    la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl nn no nso oc om or pa pcm pl ps pt qu ro ru rw sa sdh
    se si sk sl sn so sq sr st sv sw ta te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue zh zu
    """.split()  # noqa: SIM905 -- a list of 138 strings is no easier to read
)

Share = Annotated[float, Field(ge=0, le=1)]
Shares3 = Annotated[list[Share], Field(min_length=3, max_length=3)]
Shares6 = Annotated[list[Share], Field(min_length=6, max_length=6)]


class LanguageQuality(Settings):
    """A document is of the language that its source names."""

    minimum_share: float = Field(
        default=0.5, ge=0, le=1, description="Least share of the text, by letters, that is in the source's language."
    )


class GopherQuality(Settings):
    """The quality rules of Gopher (Rae et al. 2021, A.1.1). Stop words are known for English and Japanese."""

    minimum_words: int = Field(default=50, ge=0, le=1_000_000, description="Fewest words of a document.")
    maximum_words: int = Field(default=100_000, ge=1, le=100_000_000, description="Most words of a document.")
    minimum_mean_word_length: float = Field(
        default=3, ge=0, le=1000, description="Of words with spaces between them, in characters."
    )
    maximum_mean_word_length: float = Field(default=10, ge=1, le=1000, description="The same, at most.")
    maximum_symbol_ratio: float = Field(default=0.1, ge=0, le=10, description="Number signs or ellipses for each word.")
    maximum_bullet_lines: float = Field(default=0.9, ge=0, le=1, description="Share of lines that begin with a bullet.")
    maximum_ellipsis_lines: float = Field(
        default=0.3, ge=0, le=1, description="Share of lines that end with an ellipsis."
    )
    minimum_alphabetic_words: float = Field(default=0.8, ge=0, le=1, description="Least share of words with a letter.")
    minimum_stop_words: int = Field(
        default=2, ge=0, le=8, description="Fewest different stop words; of Japanese, particles."
    )


class C4Quality(Settings):
    """The rules of C4 (Raffel et al. 2020, 2.2): lines that are no sentences are taken out, pages of code dropped."""

    terminal_punctuation: bool = Field(
        default=True, description="Take out lines that don't end with a mark of a sentence's end, such as . or 。"
    )
    minimum_line_words: int = Field(default=5, ge=0, le=1000, description="Take out lines with fewer words.")
    minimum_sentences: int = Field(default=3, ge=0, le=1000, description="Drop documents with fewer sentences left.")
    curly_brackets: bool = Field(default=False, description="Keep documents with a curly bracket, which C4 drops.")


class RepetitionQuality(Settings):
    """The rules against repetition of Gopher (Rae et al. 2021, table A1). Shares of lines or of characters."""

    maximum_duplicate_lines: float = Field(default=0.3, ge=0, le=1, description="Share of lines that came before.")
    maximum_duplicate_paragraphs: float = Field(
        default=0.3, ge=0, le=1, description="Share of paragraphs that came before."
    )
    maximum_duplicate_line_characters: float = Field(default=0.2, ge=0, le=1, description="Characters in such lines.")
    maximum_duplicate_paragraph_characters: float = Field(
        default=0.2, ge=0, le=1, description="Characters in such paragraphs."
    )
    maximum_top_ngrams: Shares3 = Field(
        default=[0.2, 0.18, 0.16], description="Characters in the most frequent run of 2, 3 and 4 words."
    )
    maximum_duplicate_ngrams: Shares6 = Field(
        default=[0.15, 0.14, 0.13, 0.12, 0.11, 0.1], description="Characters in runs of 5 to 10 words that came before."
    )


class JapaneseQuality(Settings):
    """What tells Japanese prose from lists, menus and other languages; of Japanese documents alone."""

    minimum_hiragana: float = Field(default=0.2, ge=0, le=1, description="Least share of Japanese letters.")
    maximum_katakana: float = Field(default=0.5, ge=0, le=1, description="Most of Japanese letters.")
    minimum_japanese: float = Field(default=0.5, ge=0, le=1, description="Least share of Japanese among all letters.")


class PersonalData(Settings):
    """What is replaced by [EMAIL], [IP] and [PHONE]; the document stays."""

    emails: bool = Field(default=True, description="E-mail addresses.")
    ip_addresses: bool = Field(default=True, description="Public IPv4 and IPv6 addresses.")
    phone_numbers: bool = Field(default=True, description="With + and country code, or as in Japan and North America.")


class NearDuplicates(Settings):
    """Of documents that are nearly the same, in any sources, the first is kept."""

    threshold: float = Field(
        default=0.8, ge=0.3, le=1, description="Least Jaccard similarity of two documents' n-grams to be duplicates."
    )
    ngram: int = Field(default=5, ge=1, le=20, description="Words, or characters of a script without spaces.")


class Decontamination(Settings):
    """Documents that quote an evaluation set are dropped."""

    uris: list[AnyUri] = Field(
        min_length=1,
        max_length=64,
        description="Evaluation sets and held-out files: pvc:// URIs, may be globs. Of a row every text in it counts.",
    )
    ngram: int = Field(
        default=13, ge=4, le=50, description="Words in a row that both have; GPT-3's 13. A shorter text counts from 8."
    )


class Quality(Settings):
    """In this order: personal data, language, Gopher, C4, repetition, Japanese, decontamination, near duplicates."""

    personal_data: PersonalData | None = Field(default=None, description="Replace what names a person.")
    language: LanguageQuality | None = Field(default=None, description="Drop other languages than the source's.")
    gopher: GopherQuality | None = Field(default=None, description="Gopher's rules of quality.")
    c4: C4Quality | None = Field(default=None, description="C4's rules.")
    repetition: RepetitionQuality | None = Field(default=None, description="Gopher's rules of repetition.")
    japanese: JapaneseQuality | None = Field(default=None, description="Rules for Japanese.")
    decontamination: Decontamination | None = Field(default=None, description="Drop what quotes evaluation sets.")
    near_duplicates: NearDuplicates | None = Field(default=None, description="Drop near duplicates by MinHash.")
