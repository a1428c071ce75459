"""Data preparation tells whether the mixtures of later stages can be read, before a GPU is taken."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import Mixture, StageConfig
from llm_trainer.data.manifest import read_manifest
from llm_trainer.data.sequences import MixedSequences
from llm_trainer.runtime.errors import DataError
from llm_trainer.runtime.progress import Board
from llm_trainer.stages.prepare_data import run

FIELD = "spec.stages[0].pretrain.mixture"
DOCUMENTS = {"books": 60, "web": 20, "note": 1}


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The stage listens for SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def prepare(volumes: Path, *mixtures: dict[str, Any]) -> tuple[str, Board]:
    for name, count in DOCUMENTS.items():
        texts = [
            f"{name} {n}" + (f" tells of apples, pears and {n * 7} plums" if count > 1 else "") for n in range(count)
        ]
        (volumes / "corpus" / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    sources = [{"name": name, "uri": f"pvc://corpus/{name}.jsonl", "domain": name} for name in DOCUMENTS]
    checks = [{"field": FIELD, "stage": f"stage-{n}", "length": 16, **mixture} for n, mixture in enumerate(mixtures)]
    config = StageConfig.model_validate(
        {
            "training": "chat", "namespace": "team", "uid": "0", "stage": "data", "attempt": 1, "nodes": 1,
            "processesPerNode": 1, "device": "cpu", "volumesRoot": str(volumes), "runUri": "pvc://models/run",
            "prepareData": {
                "data": {"sources": sources, "validationFraction": 0.05},
                "tokenizer": {"train": {"vocabularySize": 512}},
                "mixtures": checks,
            },
        }
    )  # fmt: skip
    board = Board("data", 1)
    return run(config, board), board


def train_tokens(volumes: Path, source: str) -> int:
    manifest = read_manifest(volumes / "models/run/data")
    assert manifest
    return manifest.train_tokens(source)


def test_what_will_be_read_is_told(volumes: Path) -> None:
    said, board = prepare(volumes, {"mixture": {"weights": [{"source": "books", "weight": 3}, {}]}, "rows": 40})
    assert "stage-0 reads 75.0 % of books (" in said
    assert "25.0 % of web (" in said
    notices = {notice.reason: notice.message for notice in board.progress.notices}
    assert notices["SourceTooSmall"].startswith(f"{FIELD}: source 'note' has ")
    assert "ShareLimited" not in notices


def test_more_than_there_is_says_how_many_tokens_there_are(volumes: Path) -> None:
    limits = {"maxEpochs": [{"epochs": 2}]}
    with pytest.raises(DataError) as error:
        prepare(volumes, {"mixture": limits, "rows": 1000})
    left = sum(2 * (train_tokens(volumes, source) // 16 * 16) for source in ("books", "web"))
    assert str(error.value).startswith(f"{FIELD}: asks for 16,000 tokens, and {FIELD}.maxEpochs leaves {left:,}: ")


def test_a_later_stage_has_what_the_earlier_left(volumes: Path) -> None:
    limits = {"weights": [{"source": "books"}], "maxEpochs": [{"epochs": 1}]}
    said, _ = prepare(volumes, {"mixture": {}, "rows": 40}, {"mixture": limits, "rows": 20})
    rows = train_tokens(volumes, "books") // 16
    assert "stage-1 reads 100.0 % of books" in said
    with pytest.raises(DataError, match=rf"asks for {16 * rows:,} tokens"):
        prepare(volumes, {"mixture": {}, "rows": 40}, {"mixture": limits, "rows": rows, "after": "stage-0"})


def test_what_may_surprise(volumes: Path) -> None:
    temperature = {"temperature": 0, "maxEpochs": [{"source": "web", "epochs": 1}]}
    _, board = prepare(volumes, {"mixture": temperature, "rows": 60}, {"mixture": {"temperature": 0}, "rows": 900})
    notices = {notice.reason: notice.message for notice in board.progress.notices}
    assert "source 'web' gives " in notices["ShareLimited"]
    assert "and not 50.0%" in notices["ShareLimited"]
    assert "beyond 4 epochs" in notices["ManyEpochs"]


def test_what_is_told_is_what_is_read(volumes: Path) -> None:
    mixture = {"temperature": 0.3, "schedule": [{"fromShare": 0.8, "weights": [{"source": "web"}]}]}
    said, _ = prepare(volumes, {"mixture": mixture, "rows": 60})
    folder = volumes / "models/run/data"
    made = MixedSequences(folder, 16, 0, Mixture.model_validate(mixture), 60, {})
    tokens = made.tokens_read(0, 60)
    for name, read in zip(("books", "web", "note"), tokens, strict=True):
        assert not read or f"{read / sum(tokens):.1%}".replace("%", " %") + f" of {name}" in said
