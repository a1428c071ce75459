"""A second pretrain stage goes on in the corpus where the first ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from llm_trainer.checkpoint.files import MANIFEST, FolderManifest
from llm_trainer.checkpoint.record import record_of, write_record
from llm_trainer.config import StageConfig
from llm_trainer.config.allotment import Part
from llm_trainer.stages.continued import rows_by_source, stages_before

RUN = "pvc://models/run"
ARCHITECTURE = {"architecture": {"family": "llama"}}


def made(volumes: Path, stage: str, *, model: Mapping[str, object], step: int = 10, data: str = "d", run: str = RUN,
         **kind: object) -> str:  # fmt: skip
    """A finished stage's folder; the URI of its result."""
    config = StageConfig.model_validate(
        {
            "training": "t", "namespace": "n", "uid": "0", "stage": stage, "attempt": 1, "nodes": 1,
            "processesPerNode": 1, "device": "cpu", "runUri": run, "model": model,
            **(kind or {"pretrain": {"sequenceLength": 64, "steps": step, "globalBatchSize": 4}}),
        }
    )  # fmt: skip
    folder = volumes / "models/run/stages" / stage
    result = folder / f"results/step-{step:08d}"
    result.mkdir(parents=True)
    write_record(folder, record_of(config, {"data": data}))
    manifest = FolderManifest(kind="model", step=step, attempt=1, files=[])
    (result / MANIFEST).write_text(manifest.model_dump_json(by_alias=True))
    return f"{RUN}/stages/{stage}/results/step-{step:08d}"


def rows(uri: str, volumes: Path, data: str = "d", length: int = 64, seed: int = 0) -> int:
    return sum(stage.rows for stage in stages_before(uri, str(volumes), data, length, seed, mixed=False))


def test_rows_of_all_stages_before(tmp_path: Path) -> None:
    first = made(tmp_path, "first", model=ARCHITECTURE)
    chat = made(tmp_path, "chat", model={"uri": first}, step=3, sft={"dataset": {"uri": "pvc://c/a.jsonl"}})
    second = made(tmp_path, "second", model={"uri": chat}, step=5)
    assert (rows(first, tmp_path), rows(chat, tmp_path), rows(second, tmp_path)) == (40, 40, 60)


@pytest.mark.parametrize("other", [{"data": "other"}, {"length": 128}, {"seed": 1}])
def test_another_order_begins_at_its_beginning(tmp_path: Path, other: dict[str, object]) -> None:
    assert rows(made(tmp_path, "first", model=ARCHITECTURE), tmp_path, **other) == 0  # type: ignore[arg-type]


def test_a_run_folder_that_was_moved(tmp_path: Path) -> None:
    old = "pvc://models/old"
    made(tmp_path, "first", model=ARCHITECTURE, run=old)
    second = made(tmp_path, "second", model={"uri": f"{old}/stages/first/results/step-00000010"}, run=old)
    assert rows(second, tmp_path) == 80


def test_a_model_of_nobody_of_ours(tmp_path: Path) -> None:
    (tmp_path / "hub/llama").mkdir(parents=True)
    assert rows("pvc://hub/llama", tmp_path) == 0
    assert stages_before(None, str(tmp_path), "d", 64, 0, mixed=False) == []


PARTS = [Part("a", "web", "en", 640, 10), Part("b", "web", "ja", 6400, 100)]


def pretrain(mixture: object, steps: int) -> dict[str, object]:
    return {"sequenceLength": 64, "steps": steps, "globalBatchSize": 4, "mixture": mixture}


def test_each_source_goes_on_by_itself(tmp_path: Path) -> None:
    """Whatever the mixtures were: by the rows that each has had of it."""
    first = made(tmp_path, "first", model=ARCHITECTURE, pretrain=pretrain({"temperature": 0}, 10))
    of_b = pretrain({"weights": [{"source": "b"}]}, 5)
    second = made(tmp_path, "second", model={"uri": first}, step=5, pretrain=of_b)
    assert by_source(first, tmp_path) == {"a": 20, "b": 20}
    assert by_source(second, tmp_path) == {"a": 20, "b": 40}


def test_a_limit_of_an_earlier_stage_counts_what_came_before_it(tmp_path: Path) -> None:
    first = made(tmp_path, "first", model=ARCHITECTURE, pretrain=pretrain({"temperature": 0}, 10))
    limits = {"temperature": 0, "maxEpochs": [{"source": "a", "epochs": 2.5}]}
    second = made(tmp_path, "second", model={"uri": first}, pretrain=pretrain(limits, 10))
    assert by_source(second, tmp_path) == {"a": 25, "b": 55}


def test_a_result_before_the_end_has_read_less(tmp_path: Path) -> None:
    early = made(tmp_path, "early", model=ARCHITECTURE, step=2, pretrain=pretrain({"temperature": 0}, 10))
    assert by_source(early, tmp_path) == {"a": 4, "b": 4}


def test_text_as_one_and_by_source_are_two_orders(tmp_path: Path) -> None:
    plain = made(tmp_path, "plain", model=ARCHITECTURE)
    assert by_source(plain, tmp_path) == {}
    mixed = made(tmp_path, "mixed", model={"uri": plain}, pretrain=pretrain({}, 10))
    assert rows(mixed, tmp_path) == 0
    assert sum(by_source(mixed, tmp_path).values()) == 40


def by_source(uri: str, volumes: Path) -> dict[str, int]:
    return rows_by_source(stages_before(uri, str(volumes), "d", 64, 0, mixed=True), PARTS)
