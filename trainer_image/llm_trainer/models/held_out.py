"""Held-out loss and bits per byte, by source and by language. Exact whatever the number of processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from llm_trainer.data.manifest import DataManifest, Shard
from llm_trainer.data.sequences import PADDING, EvaluationRow, evaluation_rows
from llm_trainer.models.engine import Engine
from llm_trainer.runtime.batch import DataRank

T = TypeVar("T")


SHARE_OF_WORK = 0.01  # that an evaluation may take, of what was trained since the one before
FORWARD = 1 / 3  # of what a token costs in training, which goes backward too
LEAST_TOKENS = 1 << 14  # a figure of fewer would be noise


def token_budget(trained: int) -> int:
    """Tokens of an evaluation, after so many were trained."""
    return max(LEAST_TOKENS, int(trained * SHARE_OF_WORK / FORWARD))


@torch.no_grad()
def held_out_figures(
    engine: Engine, folder: Path, manifest: DataManifest, length: int, budget: int, alive: Callable[[], None]
) -> dict[str, float]:
    """`loss` (nats per token), `bitsPerByte`, and the latter also per source and per language.

    Bits per byte is the loss in bits over the UTF-8 bytes of the text, with one for each document's end: it does not
    depend on the tokenizer, and can be compared with what a compressor makes of the same text. Empty if nothing is
    held out. About `budget` tokens are read, the same ones each time, and at least a row's length of each shard; where
    these are not all, a shard's part tells of the whole.
    """
    shards = [shard for shard in manifest.shards if shard.split == "validation" and shard.tokens]
    if not shards:
        return {}
    share = min(1.0, budget / sum(shard.tokens for shard in shards))
    engine.model.eval()
    sums = [
        part
        for shard in shards
        for part in shard_sums(engine, folder, manifest, shard, length, max(share, length / shard.tokens), alive)
    ]
    engine.model.train()
    sums = engine.group.sum(*sums)
    nats = [shard.tokens * (sums[2 * n] / sums[2 * n + 1]) for n, shard in enumerate(shards)]

    def bits_per_byte(chosen: Callable[[Shard], bool]) -> float:
        parts = [(n, shard.bytes + shard.documents) for n, shard in zip(nats, shards, strict=True) if chosen(shard)]
        return sum(n for n, _ in parts) / math.log(2) / sum(size for _, size in parts)

    figures = {"loss": sum(nats) / sum(shard.tokens for shard in shards), "bitsPerByte": bits_per_byte(lambda _: True)}
    for source in sorted({shard.source for shard in shards}):
        figures[f"bitsPerByte/{source}"] = bits_per_byte(lambda shard, source=source: shard.source == source)  # type: ignore[misc]
    for language in sorted({shard.language for shard in shards if shard.language}):
        figures[f"bitsPerByte/language/{language}"] = bits_per_byte(
            lambda shard, language=language: shard.language == language  # type: ignore[misc]
        )
    return figures


def shard_sums(
    engine: Engine,
    folder: Path,
    manifest: DataManifest,
    shard: Shard,
    length: int,
    share: float,
    alive: Callable[[], None],
) -> tuple[float, float]:
    """A rank's part of the negative log-likelihood of a share of a shard, and its targets.

    All ranks make equally many batches.
    """
    size = engine.settings.micro_batch_size
    rows = evaluation_rows(folder, manifest, shard, length, min(1.0, share))
    nats = targets = 0.0
    place, ranks = DataRank.of(engine.settings, engine.group)
    for batch in batches(rows, size * ranks):
        mine = batch[place * size :][:size]
        made = batch_nats(engine, mine or batch[:1])
        if mine:
            nats += made
            told = sum(int((row.targets != PADDING).sum()) for row in mine)
            targets += told / engine.settings.sequence_parallel  # that all tell, while each has a part of the sum
        alive()
    return nats, targets


def batch_nats(engine: Engine, rows: list[EvaluationRow]) -> float:
    device = engine.group.device
    tokens = torch.from_numpy(np.stack([row.tokens for row in rows])).to(device)
    positions = torch.from_numpy(np.stack([row.positions for row in rows])).to(device)
    targets = torch.from_numpy(np.stack([row.targets for row in rows])).to(device)
    return engine.nats_alone(tokens, positions, targets)


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
