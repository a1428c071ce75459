"""The corpus and the tokenizer, as a user writes them."""

from __future__ import annotations

from pydantic import Field

from llm_trainer.config.base import AnyUri, Name, Settings
from llm_trainer.config.quality import Quality

TOKENS_PER_SHARD = 1 << 28  # a file of prepared data: 512 MiB as uint16


class Source(Settings):
    """One named part of the corpus."""

    name: Name = Field(description="Unique name; metrics and the manifest use it.")
    uri: AnyUri = Field(
        description="pvc://CLAIM/PATH, hf://datasets/ORG/NAME/PATH, s3://BUCKET/PATH (the path may be a glob) or "
        "https://HOST/FILE. .txt, .jsonl (field text), .parquet, or .bin: shards of prepared data."
    )
    language: str = Field(default="", max_length=35, description="BCP 47 tag, such as ja.")
    domain: str = Field(default="", max_length=63, description="Free label, such as reference.")
    license: str = Field(default="", max_length=256, description="SPDX expression or a few words.")
    stream: bool = Field(
        default=False,
        description="Read where it lies, at each pass, instead of from a copy on the claim.",
        exclude_if=lambda value: not value,
    )
    text_field: str = Field(default="text", min_length=1, max_length=63, description="JSONL/Parquet field of the text.")


class TrainTokenizer(Settings):
    """Byte-level BPE, trained on the corpus."""

    vocabulary_size: int = Field(ge=512, le=1_048_576, description="Tokens of the vocabulary, special ones included.")


class Tokenizer(Settings):
    """Exactly one of train and uri."""

    train: TrainTokenizer | None = Field(default=None, description="Train a byte-level BPE tokenizer on the corpus.")
    uri: AnyUri | None = Field(default=None, description="A folder with a tokenizer that transformers loads.")


class Data(Settings):
    """The corpus and how it is prepared."""

    sources: list[Source] = Field(min_length=1, max_length=256, description="Parts of the corpus.")
    validation_fraction: float = Field(
        default=0.05, gt=0, lt=1, description="Share of each source's documents that is held out, chosen by hash."
    )
    max_invalid_fraction: float = Field(
        default=0.01, ge=0, le=1, description="Share of documents that may be skipped as not UTF-8; above it: refused."
    )
    max_damaged_fraction: float = Field(
        default=0,
        ge=0,
        le=1,
        description="Share of a source's files that may be damaged (gzip, Parquet): each is read to there.",
        exclude_if=lambda value: not value,
    )
    seed: int = Field(default=0, ge=0, le=2**53 - 1, description="Seed of the held-out choice.")
    quality: Quality | None = Field(
        default=None,
        description="Filters of documents; each is off until it is named.",
        exclude_if=lambda value: value is None,
    )
