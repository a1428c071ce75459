"""The corpus becomes tokens: reads the sources, makes the tokenizer, writes shards and manifest in one move."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from llm_trainer.config import Data, PrepareData, Source, local_path
from llm_trainer.data.corpus import Document, SourceReader, find_sources, is_chosen, read_corpus
from llm_trainer.data.files import Files, told
from llm_trainer.data.manifest import (
    TOKENIZER,
    DataManifest,
    Shard,
    SourceCounts,
    TokenType,
    is_complete,
    read_manifest,
    write_manifest,
)
from llm_trainer.data.shards import ShardWriter, token_type
from llm_trainer.data.tokenizer import encode, folder_sha256, load_tokenizer, train_tokenizer
from llm_trainer.runtime.errors import ConfigurationError, DataError
from llm_trainer.runtime.removal import remove

BATCH_BYTES = 1 << 20  # text tokenised at a time, for which a tokenizer takes 200 times as much memory
TOKENIZER_BYTES = 1 << 30  # a larger corpus is sampled, by hash, to train the tokenizer

Sources = list[tuple[Source, Files]]


@dataclass(frozen=True, slots=True)
class Step:
    """How far a pass over the corpus is: `done` and `total` in bytes of text and bytes of files."""

    phase: str  # Tokenizer or Tokens
    done: int
    total: int
    tokens: int = 0


Report = Callable[[Step], None]
Check = Callable[[], None]  # raises when this attempt may no longer write


def prepare(
    config: PrepareData,
    data_folder: Path,
    volumes_root: str,
    writer: str,
    report: Report,
    check: Check = lambda: None,
) -> DataManifest:
    """Prepare the corpus and the tokenizer into `data_folder`, which appears whole or not at all.

    Does nothing if the folder holds what the same settings made of the same files. `writer` tells this attempt from
    others, which may still live: what they were at is removed, and they don't touch what this one is at. Raises
    DataError or ConfigurationError for what a user has to change, OSError when the disk is full, and what `check` does.
    """
    sources = find_sources(config.data, volumes_root) if config.data else []
    fingerprint = compute_fingerprint(config, sources)
    manifest = read_manifest(data_folder)
    if manifest and manifest.fingerprint == fingerprint and is_complete(data_folder, manifest):
        return manifest
    data_folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in data_folder.parent.glob(f".{data_folder.name}-*"):
        remove(leftover)
    folder = data_folder.parent / f".{data_folder.name}-{writer}"
    replaced = data_folder.parent / f".{data_folder.name}-{writer}-replaced"
    folder.mkdir()
    try:
        manifest = _write(config, sources, folder, volumes_root, report)
        manifest.fingerprint = fingerprint
        write_manifest(folder, manifest)
        _sync(folder)
        check()
        if data_folder.exists():
            data_folder.rename(replaced)
        folder.rename(data_folder)
    finally:
        for leftover in (folder, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
    return manifest


def compute_fingerprint(config: PrepareData, sources: Sources) -> str:
    """Over the settings and the names, sizes and times of the input files."""
    settings = config.model_dump(mode="json", include={"data", "tokenizer"})
    files = []
    for _, found in sources:
        for path in found.paths:
            with told(found.field, found.name(path)):
                files.append((found.name(path), (stat := path.stat()).st_size, stat.st_mtime_ns))
    return hashlib.sha256(json.dumps([settings, files], sort_keys=True).encode()).hexdigest()


def _write(config: PrepareData, sources: Sources, folder: Path, volumes_root: str, report: Report) -> DataManifest:
    tokenizer = _make_tokenizer(config, sources, volumes_root, report)
    tokenizer.save_pretrained(folder / TOKENIZER)
    dtype = token_type(len(tokenizer))
    manifest = DataManifest(
        vocabulary_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        dtype=dtype,
        tokenizer_sha256=folder_sha256(folder / TOKENIZER),
    )
    if config.data:
        progress = Tally(report, "Tokens", sum(files.bytes for _, files in sources))
        for reader in read_corpus(config.data, sources):
            manifest.shards += write_source(reader, tokenizer, dtype, folder, progress)
            manifest.sources.append(_counts(reader))
        refuse_small(manifest, config.sequence_length)
    manifest.digest = manifest.compute_digest()
    return manifest


def _make_tokenizer(
    config: PrepareData, sources: Sources, volumes_root: str, report: Report
) -> PreTrainedTokenizerBase:
    match config.tokenizer:
        case wanted if wanted.uri:
            return load_tokenizer(local_path(wanted.uri, volumes_root), "spec.tokenizer.uri")
        case wanted if wanted.train and config.data:
            progress = Tally(report, "Tokenizer", sum(files.bytes for _, files in sources))
            texts = tokenizer_texts(config.data, sources, progress)
            return train_tokenizer(texts, wanted.train.vocabulary_size)
        case wanted if wanted.train:
            raise ConfigurationError(
                "spec.tokenizer.train needs a corpus: set spec.data, or spec.tokenizer.uri instead"
            )
        case _:
            raise ConfigurationError("spec.tokenizer needs exactly one of train and uri")


class Tally:
    """Adds up what a pass has done and reports it a document batch at a time."""

    def __init__(self, report: Report, phase: str, total: int) -> None:
        self._report, self._phase, self._total = report, phase, total
        self._done = self._tokens = 0

    def add(self, done: int, tokens: int = 0) -> None:
        self._done += done
        self._tokens += tokens
        self._report(Step(self._phase, min(self._done, self._total), self._total, self._tokens))


def tokenizer_texts(data: Data, sources: Sources, progress: Tally) -> Iterator[str]:
    """The texts a tokenizer is trained on: never the held-out ones, and of a large corpus a share chosen by hash."""
    share = min(1.0, TOKENIZER_BYTES / max(1, sum(files.bytes for _, files in sources)))
    documents = texts = 0
    for reader in read_corpus(data, sources):
        for batch in _batches(reader.documents()):
            progress.add(sum(document.size for document in batch))
            for document in batch:
                documents += 1
                if document.split == "train" and is_chosen(document.digest, "tokenizer", share):
                    texts += 1
                    yield document.text
    refuse_nothing(documents, texts)


def write_source(
    reader: SourceReader, tokenizer: PreTrainedTokenizerBase, dtype: TokenType, folder: Path, progress: Tally
) -> list[Shard]:
    """Tokenise one source into its shards, each document ended by the end-of-text token."""
    writers = {split: ShardWriter(folder, split, reader.source, dtype) for split in ("train", "validation")}
    end = tokenizer.eos_token_id
    for batch in _batches(reader.documents()):
        encoded = encode(tokenizer, [document.text for document in batch])
        tokens = [np.append(np.asarray(ids, dtype=np.int64), end) for ids in encoded]
        for document, ids in zip(batch, tokens, strict=True):
            writers[document.split].add(ids, document.size)
        progress.add(sum(document.size for document in batch), sum(map(len, tokens)))
    return [shard for writer in writers.values() for shard in writer.close()]


def refuse_small(manifest: DataManifest, sequence_length: int | None) -> None:
    """Raises DataError for a corpus from which nothing can be learned."""
    tokens = manifest.tokens("train")
    refuse_nothing(sum(source.documents for source in manifest.sources), tokens)
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


def _counts(reader: SourceReader) -> SourceCounts:
    source, counts = reader.source, reader.counts
    return SourceCounts(
        name=source.name,
        uri=source.uri,
        language=source.language,
        domain=source.domain,
        license=source.license,
        files=len(reader.files.paths),
        documents=counts.documents,
        duplicates=counts.duplicates,
        invalid=counts.invalid,
        empty=counts.empty,
        bytes=counts.bytes,
    )


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Documents, about BATCH_BYTES of text at a time."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += document.size
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _sync(folder: Path) -> None:
    """What is renamed next must be on the disk."""
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
