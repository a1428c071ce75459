"""Data preparation in real pods, each with as many processes as there are CPUs."""

from __future__ import annotations

import json
import pydoc_data.topics
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import DatasetCheck, StageConfig
from llm_trainer.data.manifest import TOKENIZER
from llm_trainer.data.prepare import prepare
from llm_trainer.data.prepared import NOTES
from llm_trainer.data.rows import shares_of
from llm_trainer.data.shared_rows import WORK, RowMaking
from llm_trainer.data.sharing import Sharing
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.runtime import cpus
from llm_trainer.runtime.removal import remove
from tests.trainer.conftest import RunPods, stage_config


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    folder = tmp_path / "volumes"
    (folder / "corpus").mkdir(parents=True)
    texts = list(pydoc_data.topics.topics.values())
    for number in range(4):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts[number::4])
        (folder / f"corpus/{number}.jsonl").write_text(rows)
    unread = "x" * 100_000  # so that few rows are several shares
    turns = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}"}] for n in range(120)]
    rows = "".join(json.dumps({"messages": each, "unread": unread}) + "\n" for each in turns)
    (folder / "corpus/chat.jsonl").write_text(rows)
    return folder


CHAT = DatasetCheck.model_validate(
    {"field": "spec.stages[0].sft.dataset.uri", "uri": "pvc://corpus/chat.jsonl", "anyOfColumns": [["messages"]],
     "assistantOnlyLoss": True, "validationFraction": 0.1},
)  # fmt: skip


def config(volumes: Path, run: str, nodes: int, **settings: Any) -> StageConfig:
    sources = [{"name": f"s{number}", "uri": f"pvc://corpus/{number}.jsonl"} for number in range(4)]
    data = {
        "data": {"sources": sources, **settings}, "tokenizer": {"train": {"vocabularySize": 1024}},
        "datasets": [CHAT.model_dump(by_alias=True)],
    }  # fmt: skip
    return stage_config(volumes, "data", nodes=nodes, prepareData=data, runUri=f"pvc://models/{run}", uid=run)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_pods_make_what_one_process_makes(volumes: Path, pods: RunPods) -> None:
    run = pods(config(volumes, "two", 2), warm=False)
    result = run.run().result
    assert result
    assert [pod.termination.exit_code for pod in run.pods] == [0, 0]
    assert {path.name for path in (volumes / "models/two").iterdir()} == {
        "data", "owners.json", "report.html", "report.md", "rows", "stages",
    }  # fmt: skip
    (volumes / "models" / NOTES).rename(volumes / "notes")  # else it would be copied
    alone = config(volumes, "one", 1)
    assert alone.prepare_data
    manifest = prepare(alone.prepare_data, Path(alone.data_folder), str(volumes), "1", lambda _: None)
    assert manifest.digest == result.digest
    assert files_of(volumes / "models/one/data") == files_of(volumes / "models/two/data")
    assert len(shares_of(CHAT, str(volumes))) > 2
    sharing = Sharing(volumes / "models/one/rows" / WORK, "alone")
    RowMaking(CHAT, load_tokenizer(Path(alone.data_folder) / TOKENIZER), str(volumes), sharing).find_or_make()
    remove(sharing.folder)
    assert files_of(volumes / "models/one/rows") == files_of(volumes / "models/two/rows")


def test_processes_are_as_many_as_the_container_has_cpus_for(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    there = cpus.usable_cpus(str(tmp_path / "none"), (str(tmp_path / "none"), str(tmp_path / "none")))
    for said, wanted in (("max 100000", there), ("100000 100000", 1), ("50000 100000", 1), ("900000000 100000", there)):
        quota.write_text(said)
        assert cpus.usable_cpus(str(quota)) == wanted
    assert cpus.processes_that_fit(1 << 62) == 1
    assert cpus.processes_that_fit(1) == cpus.usable_cpus()
