"""Held-out figures, by a model that needs no weights: the same however many read, and those of every document."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llm_trainer.config import Sft, Source
from llm_trainer.data.manifest import DataManifest, write_manifest
from llm_trainer.data.shards import ShardWriter
from llm_trainer.models import held_out
from llm_trainer.models.held_out import held_out_figures, token_budget
from llm_trainer.stages.held_out_rows import LEAST_ROWS, evaluated, row_budget

EOS, LENGTH = 0, 8
DOCUMENTS = [[1 + (n * 7 + i) % 30 for i in range(1 + n * 5 % 23)] for n in range(60)]


def nats_of(tokens: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of a token, its place in its document and what follows; so that a wrong place or neighbour shows."""
    return (1 + tokens.double().sin() + positions.double().cos() * 0.5) * (1 + targets.double() / 30)


class Alone:
    """An engine as one of several."""

    def __init__(self, rank: int, world_size: int, micro_batch_size: int) -> None:
        self.group: Any = SimpleNamespace(
            rank=rank, world_size=world_size, device=torch.device("cpu"), sum=lambda *x: x
        )
        self.settings = SimpleNamespace(micro_batch_size=micro_batch_size, processes_per_row=1, sequence_parallel=1)
        self.model = torch.nn.Module()
        self.rows = 0

    def nats_alone(self, *rows: torch.Tensor) -> float:
        return float(self.nats(*rows)[0])

    def nats(self, tokens: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, None]:
        self.rows += len(tokens)
        return (nats_of(tokens, positions, targets) * (targets != -100)).sum(), None


@pytest.fixture
def manifest(tmp_path: Path) -> DataManifest:
    shards = []
    for name, documents in (("a", DOCUMENTS[:50]), ("b", DOCUMENTS[50:])):
        source = Source(name=name, uri="pvc://c/x", language="en" if name == "a" else "")
        writer = ShardWriter(tmp_path, "validation", source, "uint16")
        for document in documents:
            writer.add([*document, EOS], text_bytes=3 * len(document))
        shards += writer.close()
    made = DataManifest(vocabulary_size=32, eos_token_id=EOS, dtype="uint16", shards=shards)
    write_manifest(tmp_path, made)
    return made


def figures(
    folder: Path, manifest: DataManifest, budget: int, world_size: int = 1, micro: int = 1
) -> tuple[dict[str, float], int]:
    """Of all ranks together, and how many rows these read."""
    sums: list[tuple[float, ...]] = []
    engines = [Alone(rank, world_size, micro) for rank in range(world_size)]
    for engine in engines:

        def gathered(*own: float) -> tuple[float, ...]:
            sums.append(own)
            return (1.0,) * len(own)

        engine.group.sum = gathered
        held_out_figures(engine, folder, manifest, LENGTH, budget, lambda: None)  # type: ignore[arg-type]
    together = tuple(map(sum, zip(*sums, strict=True)))
    engines[0].group.sum = lambda *_: together
    made = held_out_figures(engines[0], folder, manifest, LENGTH, budget, lambda: None)  # type: ignore[arg-type]
    return made, sum(engine.rows for engine in engines[1:]) + engines[0].rows // 2


def test_every_document_is_measured_by_itself(tmp_path: Path, manifest: DataManifest) -> None:
    """What the packed rows give is what each document gives alone, cut where it is longer than a row."""
    expected: dict[str, float] = {"a": 0.0, "b": 0.0}
    for number, document in enumerate(DOCUMENTS):
        whole = torch.tensor([EOS, *document, EOS])
        for start in range(0, len(whole) - 1, LENGTH):
            part = whole[start : start + LENGTH + 1]
            places = torch.arange(len(part) - 1)
            expected["a" if number < 50 else "b"] += float(nats_of(part[:-1], places, part[1:]).sum())
    made, rows = figures(tmp_path, manifest, 10**9)
    tokens = sum(len(document) + 1 for document in DOCUMENTS)
    assert made["loss"] == pytest.approx(sum(expected.values()) / tokens)
    size = sum(3 * len(document) + 1 for document in DOCUMENTS[50:])  # a byte for each end, which costs nats too
    assert made["bitsPerByte/b"] == pytest.approx(expected["b"] / math.log(2) / size)
    assert rows < 1.5 * tokens / LENGTH, "documents share rows"


@pytest.mark.parametrize("budget", [1, 200, 10**9])
def test_the_figures_are_the_same_however_many_read(tmp_path: Path, manifest: DataManifest, budget: int) -> None:
    alone, _ = figures(tmp_path, manifest, budget)
    assert set(alone) == {"loss", "bitsPerByte", "bitsPerByte/a", "bitsPerByte/b", "bitsPerByte/language/en"}
    for world_size, micro in ((1, 4), (2, 1), (3, 5)):
        assert figures(tmp_path, manifest, budget, world_size, micro)[0] == pytest.approx(alone, rel=1e-12)


def test_a_budget_bounds_what_is_read_and_tells_of_the_whole(tmp_path: Path, manifest: DataManifest) -> None:
    everything, all_rows = figures(tmp_path, manifest, 10**9)
    some, rows = figures(tmp_path, manifest, 200)
    assert rows <= 200 / LENGTH * 2 < all_rows
    assert some["bitsPerByte"] == pytest.approx(everything["bitsPerByte"], rel=0.1)
    least, fewest = figures(tmp_path, manifest, 1)
    assert fewest <= 4
    assert least["bitsPerByte/b"] > 0


def test_the_budget_is_a_share_of_the_work() -> None:
    trained = 50 * 256 * 2048
    assert token_budget(trained) * held_out.FORWARD == pytest.approx(trained * 0.01, rel=1e-6)
    assert token_budget(50) == held_out.LEAST_TOKENS


def test_held_out_rows_are_a_share_of_the_work_too() -> None:
    settings = Sft.model_validate({"dataset": {"uri": "pvc://c/a.jsonl"}, "globalBatchSize": 1000})
    assert row_budget(settings) == pytest.approx(50 * 1000 * 0.01 * 3, abs=1)
    rows = list(range(100_000))
    some = evaluated(rows, settings)
    assert len(some) == row_budget(settings)
    assert some == sorted(set(some))
    assert some[0] < 100
    assert some[-1] > 99_900
    few = settings.model_copy(update={"global_batch_size": 8})
    assert evaluated(rows[:LEAST_ROWS], few) == rows[:LEAST_ROWS]
    assert len(evaluated(rows, few)) == LEAST_ROWS
    assert evaluated([], few) == []
