"""Data preparation as a stage: what a user can get wrong ends it as a fault of the data, by its field and file."""

from __future__ import annotations

import gzip
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from llm_trainer.config import StageConfig
from llm_trainer.protocol import ExitCode
from llm_trainer.runtime.errors import classify
from llm_trainer.runtime.progress import Board
from llm_trainer.stages.prepare_data import run

ROWS = [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(20)]
TEXTS = [{"text": f"document {number} about apples and pears and other fruit"} for number in range(40)]
MODEL_FIELD, ROWS_FIELD = "spec.stages[0].model.uri", "spec.stages[0].sft.dataset.uri"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The stage listens for SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def claims(volumes: Path) -> Path:
    """A corpus, a dataset and a model's folder, all as they should be."""
    for name, rows in (("a.jsonl", TEXTS), ("rows.jsonl", ROWS)):
        (volumes / "corpus" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (volumes / "hub").mkdir()
    (volumes / "hub/config.json").write_text("{}")
    save_file({"a": torch.ones(3)}, volumes / "hub/model.safetensors")
    return volumes


def prepare(volumes: Path, **settings: Any) -> Board:
    config = StageConfig.model_validate(
        {
            "training": "chat", "namespace": "team", "uid": "0", "stage": "data", "attempt": 1, "nodes": 1,
            "processesPerNode": 1, "device": "cpu", "volumesRoot": str(volumes), "runUri": "pvc://models/run",
            "prepareData": {
                "data": {"sources": [{"name": "a", "uri": "pvc://corpus/a*"}], "validationFraction": 0.2},
                "tokenizer": {"train": {"vocabularySize": 512}},
                "datasets": [
                    {"field": ROWS_FIELD, "uri": "pvc://corpus/rows*", "anyOfColumns": [["prompt", "completion"]]}
                ],
                "models": [{"field": MODEL_FIELD, "stage": "chat", "uri": "pvc://hub/."}],
                **settings,
            },
        }
    )  # fmt: skip
    board = Board("data", 1)
    run(config, board)
    return board


def test_what_is_right(claims: Path) -> None:
    assert prepare(claims).progress.phase == "Done"


def cut_gzip(volumes: Path) -> None:
    (volumes / "corpus/a.jsonl.gz").write_bytes(gzip.compress(json.dumps(TEXTS).encode())[:-9])


def plain_as_gzip(volumes: Path) -> None:
    (volumes / "corpus/rows.jsonl.gz").write_text(json.dumps(ROWS[0]))


def dangling(volumes: Path) -> None:
    (volumes / "corpus/rows-2.jsonl").symlink_to("../blobs/2")


def dangling_source(volumes: Path) -> None:
    (volumes / "corpus/a-2.jsonl").symlink_to("../blobs/2")


def pointer(volumes: Path) -> None:
    (volumes / "hub/model.safetensors").write_text(POINTER)


def pointer_of_rows(volumes: Path) -> None:
    (volumes / "corpus/rows-2.parquet").write_text(POINTER)


def not_finite(volumes: Path) -> None:
    save_file({"a": torch.tensor([1.0, torch.nan])}, volumes / "hub/model.safetensors")


def link_out(volumes: Path) -> None:
    (volumes / "secret").write_text("s")
    (volumes / "hub/tokenizer.json").symlink_to("../secret")


def deep(volumes: Path) -> None:
    (volumes / "corpus/rows.jsonl").write_text("[" * 100_000)


def utf_16(volumes: Path) -> None:
    (volumes / "corpus/a.jsonl").write_text(json.dumps(TEXTS[0]), encoding="utf-16")


@pytest.mark.parametrize(
    ("spoil", "field", "says"),
    [
        (cut_gzip, "spec.data.sources[0].uri (source 'a'): pvc://corpus/a.jsonl.gz", "Truncated"),
        (plain_as_gzip, f"{ROWS_FIELD}: pvc://corpus/rows.jsonl.gz", "damaged or of another format"),
        (dangling, f"{ROWS_FIELD}: of 2 files", "lead nowhere"),
        (dangling_source, "spec.data.sources[0].uri (source 'a'): of 2 files", "lead nowhere"),
        (pointer, f"{MODEL_FIELD}: pvc://hub/.", "model.safetensors is a Git LFS pointer"),
        (pointer_of_rows, f"{ROWS_FIELD}: pvc://corpus/rows-2.parquet", "Git LFS pointer"),
        (not_finite, f"{MODEL_FIELD}: pvc://hub/.", "not finite"),
        (link_out, f"{MODEL_FIELD} pvc://hub/.", "leads out of the claim"),
        (deep, f"{ROWS_FIELD}: pvc://corpus/rows.jsonl, line 1", "can't be read"),
        (utf_16, "source 'a'", "looks like UTF-16"),
    ],
)
def test_what_is_wrong(claims: Path, spoil: Callable[[Path], None], field: str, says: str) -> None:
    spoil(claims)
    with pytest.raises(Exception, match=says) as error:
        prepare(claims)
    code, reason, message = classify(error.value)
    assert (code, reason) == (ExitCode.DATA, "DataError")
    assert message.startswith(field), message


def test_one_text_file(claims: Path) -> None:
    (claims / "corpus/input.txt").write_text("First Citizen: Before we proceed any further, hear me speak. " * 50)
    data = {"sources": [{"name": "a", "uri": "pvc://corpus/input.txt"}], "validationFraction": 0.05}
    (notice,) = [n for n in prepare(claims, data=data).progress.notices if n.reason == "NothingHeldOut"]
    assert notice.message.endswith("held-out figures; cutting it into several documents (a .txt file is one) helps")


def test_files_of_two_names_are_told(claims: Path) -> None:
    (claims / "corpus/rows-again.jsonl").symlink_to("rows.jsonl")
    (notice,) = [notice for notice in prepare(claims).progress.notices if notice.reason == "LinkedTwice"]
    assert notice.message.startswith(f"{ROWS_FIELD}: 1 names that match pvc://corpus/rows* are links to files")
