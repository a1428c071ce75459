"""What data preparation leaves behind: `data/manifest.json`, the contract between it and everyone who reads tokens."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer"  # the tokenizer's folder beside the manifest
VERSION = 1

Split = Literal["train", "validation"]
TokenType = Literal["uint16", "uint32"]


class _Record(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class DamagedFile(_Record):
    """What comes after its damage was skipped."""

    file: str
    bytes: int = Field(description="Of the file.")
    message: str


class SourceCounts(_Record):
    """What became of one source. `bytes` and `documents` are what the shards hold, both splits together."""

    name: str
    uri: str
    language: str = ""
    domain: str = ""
    license: str = ""
    files: int = 0
    documents: int = 0
    duplicates: int = Field(default=0, description="Dropped: the same text after NFC came before, in any source.")
    invalid: int = Field(default=0, description="Dropped: not UTF-8.")
    empty: int = Field(default=0, description="Dropped: nothing but white space.")
    bytes: int = 0
    filtered: int = Field(default=0, description="Dropped by spec.data.quality.", exclude_if=lambda value: not value)
    damaged: list[DamagedFile] = Field(
        default_factory=list, description="Skipped in part or whole.", exclude_if=lambda value: not value
    )


class QualityRecord(_Record):
    """The report of spec.data.quality, in the folder `quality`."""

    report: str
    sha256: str
    dropped: dict[str, int] = Field(description="Documents by `filter.threshold`, most first.")


class Shard(_Record):
    """One file of tokens; beside `x.bin` lies `x.idx`, the documents' ends in tokens as little-endian int64."""

    file: str
    split: Split
    source: str
    language: str = ""
    domain: str = ""
    license: str = ""
    tokens: int
    documents: int
    bytes: int = Field(description="UTF-8 bytes of the documents' text, without the end-of-document tokens.")
    sha256: str


class DataManifest(_Record):
    version: int = VERSION
    vocabulary_size: int
    eos_token_id: int
    dtype: TokenType
    tokenizer: str = TOKENIZER
    sources: list[SourceCounts] = Field(default_factory=list)
    shards: list[Shard] = Field(default_factory=list)
    quality: QualityRecord | None = Field(default=None, exclude_if=lambda value: value is None)
    tokenizer_sha256: str = Field(default="", description="Over the names and contents of the tokenizer's files.")
    fingerprint: str = Field(default="", description="Over the settings and input files; the same: nothing to do.")
    digest: str = ""

    def tokens(self, split: Split) -> int:
        return sum(shard.tokens for shard in self.shards if shard.split == split)

    def source_tokens(self, source: str) -> int:
        return sum(shard.tokens for shard in self.shards if shard.source == source)

    def train_tokens(self, source: str) -> int:
        return sum(shard.tokens for shard in self.shards if shard.source == source and shard.split == "train")

    @property
    def names(self) -> list[str]:
        """The sources that have shards, in the order of these."""
        return list(dict.fromkeys(shard.source for shard in self.shards))

    def compute_digest(self) -> str:
        """`sha256:…` over the content alone: the same texts prepared on another day or disk have the same digest."""
        content = self.model_dump(mode="json", by_alias=True, exclude={"digest", "fingerprint"})
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def read_manifest(data_folder: str | Path) -> DataManifest | None:
    """The manifest of a folder of prepared data, or None where there is none."""
    path = Path(data_folder) / MANIFEST
    try:
        return DataManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None


def write_manifest(data_folder: Path, manifest: DataManifest) -> None:
    text = json.dumps(manifest.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False)
    (data_folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def is_complete(data_folder: Path, manifest: DataManifest) -> bool:
    """Whether every file that the manifest names is there with its size."""
    width = 2 if manifest.dtype == "uint16" else 4
    files = ((data_folder / shard.file, shard) for shard in manifest.shards)
    return (data_folder / manifest.tokenizer).is_dir() and all(
        path.is_file()
        and path.stat().st_size == shard.tokens * width
        and path.with_suffix(".idx").is_file()
        and path.with_suffix(".idx").stat().st_size == shard.documents * 8
        for path, shard in files
    )
