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
from llm_trainer.data.sequences import EvaluationRow, evaluation_rows
from llm_trainer.models.engine import Engine
from llm_trainer.models.language_loss import IGNORED

T = TypeVar("T")


@torch.no_grad()
def held_out_figures(
    engine: Engine, folder: Path, manifest: DataManifest, length: int, alive: Callable[[], None]
) -> dict[str, float]:
    """`loss` (nats per token), `bitsPerByte`, and the latter also per source and per language.

    Bits per byte is the loss in bits over the UTF-8 bytes of the text: it does not depend on the tokenizer, and can be
    compared with what a compressor makes of the same text. Empty if nothing is held out.
    """
    shards = [shard for shard in manifest.shards if shard.split == "validation" and shard.tokens]
    if not shards:
        return {}
    engine.model.eval()
    nats = [shard_nats(engine, folder, manifest, shard, length, alive) for shard in shards]
    engine.model.train()
    nats = engine.group.sum(*nats)

    def bits_per_byte(chosen: Callable[[Shard], bool]) -> float:
        parts = [(n, shard.bytes) for n, shard in zip(nats, shards, strict=True) if chosen(shard)]
        return sum(n for n, _ in parts) / math.log(2) / sum(size for _, size in parts)

    figures = {"loss": sum(nats) / sum(shard.tokens for shard in shards), "bitsPerByte": bits_per_byte(lambda _: True)}
    for source in sorted({shard.source for shard in shards}):
        figures[f"bitsPerByte/{source}"] = bits_per_byte(lambda shard, source=source: shard.source == source)  # type: ignore[misc]
    for language in sorted({shard.language for shard in shards if shard.language}):
        figures[f"bitsPerByte/language/{language}"] = bits_per_byte(
            lambda shard, language=language: shard.language == language  # type: ignore[misc]
        )
    return figures


def shard_nats(
    engine: Engine, folder: Path, manifest: DataManifest, shard: Shard, length: int, alive: Callable[[], None]
) -> float:
    """A rank's part of a shard's total negative log-likelihood; all ranks make equally many batches."""
    size = engine.settings.micro_batch_size
    rows = evaluation_rows(folder, manifest, shard, length)
    total = 0.0
    for batch in batches(rows, size * engine.group.world_size):
        mine = batch[engine.group.rank * size :][:size]
        total += batch_nats(engine, mine or batch[:1], counts=bool(mine))
        alive()
    return total


def batch_nats(engine: Engine, rows: list[EvaluationRow], *, counts: bool) -> float:
    tokens = torch.from_numpy(np.stack([row.row.tokens for row in rows])).to(engine.group.device)
    positions = torch.from_numpy(np.stack([row.row.positions for row in rows])).to(engine.group.device)
    counted = torch.from_numpy(np.stack([row.counted for row in rows])).to(engine.group.device)
    targets = tokens[:, 1:].masked_fill(~counted, IGNORED)
    nats = engine.nats(tokens[:, :-1], positions, targets)[0]
    return float(nats) if counts else 0.0


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
