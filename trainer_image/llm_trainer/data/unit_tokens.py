"""One unit's documents as tokens, in shards of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from transformers import PreTrainedTokenizerBase

from llm_trainer.config import Quality
from llm_trainer.data.corpus import Document
from llm_trainer.data.documents import Choices, Corpus
from llm_trainer.data.manifest import Shard
from llm_trainer.data.quality.selection import (
    DROPPED,
    EQUAL,
    KEPT,
    NEAR_DUPLICATE,
    PART,
    kept_documents,
    language_of,
    take_down_near,
)
from llm_trainer.data.shards import ShardWriter, token_type
from llm_trainer.data.tokenizer import encode

BATCH_BYTES = 1 << 18  # text tokenised at a time, which takes it 200 times as much memory; more is no faster
RECORD = "record.json"


class UnitTokens(BaseModel):
    """`bytes` and `documents` are what the shards hold."""

    shards: list[Shard]
    documents: int
    bytes: int
    duplicates: int
    filtered: int


def write_tokens(
    corpus: Corpus, unit: int, choices: Choices, near: NDArray[np.void], quality: Quality | None,
    tokenizer: PreTrainedTokenizerBase, folder: Path, progress: Callable[[int, int], None],
) -> None:  # fmt: skip
    """Tokenise what stays of a unit, each document ended by the end-of-text token."""
    source, number = corpus.units[unit].source, corpus.units[unit].number
    documents = corpus.read_again(unit)
    if quality and len(near):
        documents = take_down_near(corpus, unit, near, quality, documents, folder)
    dtype = token_type(len(tokenizer))
    writers = {split: ShardWriter(folder, split, source, dtype, unit=number) for split in ("train", "validation")}
    end, count, size = tokenizer.eos_token_id, 0, 0
    for batch in _batches(kept_documents(quality, documents, choices, language_of(source))):
        tokens = 0
        for document, ids in zip(batch, encode(tokenizer, [document.text for document in batch]), strict=True):
            writers[document.split].add(np.append(np.asarray(ids, dtype=np.int64), end), document.size)
            tokens += len(ids) + 1
        count, size = count + len(batch), size + sum(document.size for document in batch)
        progress(sum(document.size for document in batch), tokens)
    record = UnitTokens(
        shards=[shard for writer in writers.values() for shard in writer.close()],
        documents=count,
        bytes=size,
        duplicates=int((choices == EQUAL).sum()),
        filtered=int(((choices == DROPPED) | (choices == NEAR_DUPLICATE)).sum()),
    )
    assert count == (choices == KEPT).sum()  # noqa: S101 -- they are the same documents
    (folder / RECORD).write_text(record.model_dump_json())


def read_record(folder: Path) -> UnitTokens:
    return UnitTokens.model_validate_json((folder / RECORD).read_bytes())


def tokens_in(folder: Path) -> int:
    return sum(shard.tokens for shard in read_record(folder).shards)


def has_part(folder: Path) -> bool:
    """Whether it has a part of the report."""
    return (folder / PART).exists()


def is_whole(folder: Path) -> bool:
    """Whether the shards are still there."""
    return all((folder / file).is_file() for shard in read_record(folder).shards for file in _files(shard))


def move_shards(folder: Path, into: Path) -> None:
    for shard in read_record(folder).shards:
        for file in _files(shard):
            (into / file).parent.mkdir(exist_ok=True)
            (folder / file).rename(into / file)


def _files(shard: Shard) -> Iterator[Path]:
    yield Path(shard.file).with_suffix(".idx")
    yield Path(shard.file)


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
