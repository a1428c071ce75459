"""A result's model card."""

from __future__ import annotations

import json
import math
from pathlib import Path

from huggingface_hub import ModelCard

from llm_trainer.config import StageConfig
from llm_trainer.data.manifest import DataManifest, SourceCounts, write_manifest
from llm_trainer.models.adapter import Base
from llm_trainer.models.card import write_card
from llm_trainer.models.low_rank import where
from llm_trainer.runtime.history import History
from tests.trainer.conftest import PRETRAIN, stage_config


def card(volumes: Path, stage: StageConfig, source: SourceCounts) -> str:
    """Written after two steps of three."""
    data, folder = Path(stage.data_folder), Path(stage.stage_folder)
    data.mkdir(parents=True)
    folder.mkdir(parents=True)
    manifest = DataManifest(vocabulary_size=9, eos_token_id=0, dtype="uint16", sources=[source], digest="sha256:0")
    write_manifest(data, manifest)
    rows = [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 2.5},
        {"step": 2, "evaluation": {"loss": 2.25}},
        {
            "step": 2,
            "scores": [{"task": "qa", "metric": "acc", "value": 0.5, "stderr": 0.11, "samples": 20, "fewShot": 2}],
        },
    ]
    lines = [*map(json.dumps, rows), json.dumps({"step": 3, "loss": 1.0}), '{"half']
    (folder / "history.jsonl").write_text("\n".join(lines))
    assert stage.pretrain
    write_card(volumes, stage, stage.pretrain, 2, "model")
    return (volumes / "README.md").read_text()


def test_what_it_tells(tmp_path: Path) -> None:
    stage = stage_config(tmp_path, "base", model={"architecture": {"family": "llama"}}, pretrain=PRETRAIN)
    source = SourceCounts(name="manual", uri="pvc://c/*.txt", language="ja-JP", license="GPL-2.0", documents=1234)
    text = card(tmp_path, stage, source)
    found = ModelCard(text).data.__dict__
    assert [found[name] for name in ("library_name", "pipeline_tag", "language")] == [
        "transformers",
        "text-generation",
        ["ja"],
    ]
    assert (found["license"], found["license_name"]) == ("other", "GPL-2.0")
    assert "| manual | pvc://c/*.txt | ja-JP |  | GPL-2.0 | 1,234 |" in text
    assert "| training loss | 2.5 |" in text
    assert "| held-out loss | 2.25 |" in text
    assert "| qa/acc | 0.5 ± 0.11 (2-shot, 20 questions) |" in text
    assert '"sequenceLength": 64' in text


def test_figures_that_are_no_numbers(tmp_path: Path) -> None:
    """As the history writes them: a step that was left out is often the last one before a publish."""
    stage = stage_config(tmp_path, "base", model={"architecture": {"family": "llama"}}, pretrain=PRETRAIN)
    Path(stage.stage_folder).mkdir(parents=True)
    history = History(Path(stage.stage_folder) / "history.jsonl", 1)
    history.append(2, loss=math.nan)
    history.append(2, evaluation={"margin": -math.inf, "accuracy": 1, "loss": 0.25})
    assert stage.pretrain
    write_card(tmp_path, stage, stage.pretrain, 2, "model")
    text = (tmp_path / "README.md").read_text()
    for line in ("training loss | NaN", "held-out margin | -Infinity", "held-out accuracy | 1", "held-out loss | 0.25"):
        assert f"| {line} |" in text


def test_what_users_write_breaks_nothing(tmp_path: Path) -> None:
    stage = stage_config(tmp_path, "base", model={"architecture": {"family": "llama"}}, pretrain=PRETRAIN)
    source = SourceCounts(name="x", uri="pvc://c/a|b`c\n---\nd", license="a: [b\n---\n# c | d", domain="|")
    text = card(tmp_path, stage, source)
    assert ModelCard(text).data.__dict__["license_name"] == "a: [b\n---\n# c | d"
    (row,) = [line for line in text.splitlines() if line.startswith("| x |")]
    assert row.replace("\\|", "").count("|") == 7


def test_where_an_adapters_base_is() -> None:
    base = Base("pvc://models/runs/a/results/step-1", Path("/volumes/models/runs/a/results/step-1"), None)
    assert where(base, Path("/volumes/models/runs/b/results/.new")) == "../../../a/results/step-1"
    assert where(base, Path("/volumes/others/b/results/.new")) == base.uri


def test_what_was_fetched_is_told_with_its_revision(tmp_path: Path) -> None:
    base, rows = (
        "pvc://models/.fetched/hf/models/team/small/abc",
        "pvc://models/.fetched/hf/datasets/team/rows/def/a.jsonl",
    )
    settings = {"dataset": {"uri": rows}}
    stage = stage_config(tmp_path, "chat", model={"uri": base}, sft=settings)
    Path(stage.stage_folder).mkdir(parents=True)
    inputs = [
        {"uri": "hf://team/small", "use": "model", "place": base, "revision": "abc", "bytes": 1, "files": 1,
         "license": "apache-2.0"},
        {"uri": "hf://datasets/team/rows/a.jsonl", "use": "data", "place": rows, "revision": "def", "bytes": 1,
         "files": 1, "license": "cc-by-4.0"},
    ]  # fmt: skip
    (Path(stage.run_folder) / "inputs.json").write_text(json.dumps(inputs))
    assert stage.sft
    write_card(tmp_path, stage, stage.sft, 2, "adapter")
    text = (tmp_path / "README.md").read_text()
    assert "It starts from `hf://team/small`, revision `abc`, licence apache-2.0." in text
    assert "Rows of `hf://datasets/team/rows/a.jsonl`, revision `def`, licence cc-by-4.0," in text
    found = ModelCard(text).data.__dict__
    assert (found["base_model"], found["datasets"]) == ("team/small", ["team/rows"])
    assert (found["license"], found["license_name"]) == ("other", "apache-2.0; cc-by-4.0")
    assert ".fetched" not in text.partition("## Settings")[0]

    # a later stage starts from a result of the run, and says what the run began with
    result = "pvc://models/run/stages/chat/results/step-00000002"
    later = stage_config(tmp_path, "later", model={"uri": result}, sft=settings)
    Path(later.stage_folder).mkdir(parents=True)
    assert later.sft
    write_card(tmp_path, later, later.sft, 2, "model")
    text = (tmp_path / "README.md").read_text()
    assert "Its first model was `hf://team/small`, revision `abc`, licence apache-2.0." in text
    assert ModelCard(text).data.__dict__["base_model"] == "team/small"
