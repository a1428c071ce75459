"""From what the phases have made to the folder of prepared data, and what is refused then."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from llm_trainer.config import Quality
from llm_trainer.data.documents import Corpus
from llm_trainer.data.manifest import (
    TOKENIZER,
    DamagedFile,
    DataManifest,
    QualityRecord,
    Shard,
    SourceCounts,
    Split,
    write_manifest,
)
from llm_trainer.data.quality.report import sha256_of
from llm_trainer.data.quality.selection import FOLDER, REPORT, write_report
from llm_trainer.data.shards import token_type
from llm_trainer.data.tokenized import Sources, listed, take
from llm_trainer.data.tokenizer import folder_sha256, load_tokenizer
from llm_trainer.data.unit_tokens import UnitTokens, has_part, move_shards, read_record
from llm_trainer.runtime.errors import DataError

SPLITS: tuple[Split, ...] = ("train", "validation")


@dataclass(frozen=True)
class Made:
    """What all processes have made. `tokens` and `judged`: folders of each unit's."""

    tokenizer: Path
    corpus: Corpus | None = None
    tokens: Sequence[Path] = ()
    quality: Quality | None = None
    filters: Sequence[str] = ()
    judged: Sequence[Path] = ()
    taken: Sources = field(default_factory=list)  # of tokens already

    @cached_property
    def records(self) -> list[UnitTokens]:
        return [read_record(folder) for folder in self.tokens]

    def refuse_small(self, sequence_length: int | None) -> None:
        """Raises DataError for a corpus from which nothing can be learned."""
        if self.corpus or self.taken:
            shards = [shard for record in self.records for shard in record.shards]
            shards += [shard for _, files in self.taken for _, shard in listed(files)]
            tokens = sum(shard.tokens for shard in shards if shard.split == "train")
            refuse_nothing(sum(shard.documents for shard in shards), tokens)
            refuse_few(tokens, sequence_length)

    def write(self, folder: Path, fingerprint: str, alive: Callable[[], None]) -> DataManifest:
        """The folder of prepared data. Takes the shards out of the units' folders."""
        shutil.copytree(self.tokenizer, folder / TOKENIZER)
        tokenizer = load_tokenizer(folder / TOKENIZER, "the training's tokenizer")
        manifest = DataManifest(
            vocabulary_size=len(tokenizer),
            eos_token_id=tokenizer.eos_token_id,
            dtype=token_type(len(tokenizer)),
            tokenizer_sha256=folder_sha256(folder / TOKENIZER),
            fingerprint=fingerprint,
        )
        if self.corpus:
            for each in self.tokens:
                move_shards(each, folder)
            names = list(dict.fromkeys(unit.source.name for unit in self.corpus.units))
            manifest.sources = [self._counts(self.corpus, name) for name in names]
            manifest.shards = [shard for name in names for shard in self._shards(self.corpus, name)]
            if self.quality:
                manifest.quality = self._report(self.corpus, self.quality, manifest, folder)
        for source, files in self.taken:
            shards, counts = take(source, files, folder, folder / TOKENIZER, alive)
            manifest.shards, manifest.sources = [*manifest.shards, *shards], [*manifest.sources, counts]
        manifest.digest = manifest.compute_digest()
        write_manifest(folder, manifest)
        return manifest

    def _shards(self, corpus: Corpus, source: str) -> list[Shard]:
        own = [record for unit, record in zip(corpus.units, self.records, strict=True) if unit.source.name == source]
        return [shard for split in SPLITS for record in own for shard in record.shards if shard.split == split]

    def _counts(self, corpus: Corpus, name: str) -> SourceCounts:
        all_of = zip(corpus.units, corpus.records, self.records, strict=True)
        own = [(unit, read, made) for unit, read, made in all_of if unit.source.name == name]
        source, files = own[0][0].source, own[0][0].files
        return SourceCounts(
            name=source.name,
            uri=source.uri,
            language=source.language,
            domain=source.domain,
            license=source.license,
            files=len(files.paths),
            documents=sum(made.documents for _, _, made in own),
            duplicates=sum(made.duplicates for _, _, made in own),
            invalid=sum(read.invalid for _, read, _ in own),
            empty=sum(read.empty for _, read, _ in own),
            filtered=sum(made.filtered for _, _, made in own),
            damaged=[
                DamagedFile(file=each.file, bytes=each.bytes, message=each.message) for each in corpus.damaged(name)
            ],
            bytes=sum(made.bytes for _, _, made in own),
        )

    def _report(self, corpus: Corpus, quality: Quality, manifest: DataManifest, folder: Path) -> QualityRecord:
        kept = {
            source.name: (source.documents, source.bytes, manifest.source_tokens(source.name))
            for source in manifest.sources
        }
        into = folder / FOLDER
        into.mkdir()
        parts = [*self.judged, *(each for each in self.tokens if has_part(each))]
        report = write_report(corpus, quality, self.filters, parts, into, kept)
        sha256 = sha256_of((into / REPORT).read_bytes())
        return QualityRecord(report=f"{FOLDER}/{REPORT}", sha256=sha256, dropped=report.dropped)


def refuse_few(tokens: int, sequence_length: int | None) -> None:
    """Raises DataError for fewer tokens than a row of the stage that reads the longest ones."""
    if sequence_length and tokens < sequence_length:
        raise DataError(
            f"the corpus has {tokens} tokens to train on, fewer than one sequence of {sequence_length}: "
            "add documents or shorten the stage's sequenceLength"
        )


def refuse_nothing(documents: int, to_train_on: int) -> None:
    """Raises DataError for an empty corpus, and for one that is held out as a whole."""
    if not documents:
        raise DataError("the corpus is empty: no source has a document that is UTF-8 and not blank")
    if not to_train_on:
        raise DataError(
            f"all {documents} documents of the corpus fell into the held-out split: "
            "add documents (a .txt file is one: split the file, or make a line of JSONL of each part) or lower "
            "spec.data.validationFraction"
        )
