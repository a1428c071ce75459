"""The image's answers about a model's classes are laid where vLLM looks for its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_server.model_infos import FILES, lay_out

LLAMA = "vllm-model_executor-models-llama-LlamaForCausalLM.json"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "modelinfos"
    folder.mkdir()
    (folder / LLAMA).write_text("of this image")
    (folder / "vllm-model_executor-models-qwen3-Qwen3ForCausalLM.json").write_text("qwen3")
    (folder / FILES).write_text(json.dumps({"LlamaForCausalLM": LLAMA, "AquilaForCausalLM": LLAMA}))
    return folder


def model(tmp_path: Path, classes: object) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": classes}))
    return folder


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "AquilaForCausalLM"])
def test_those_of_its_classes_alone_and_in_the_place_of_older_ones(tmp_path: Path, made: Path, name: str) -> None:
    cache = tmp_path / "cache" / "modelinfos"
    cache.mkdir(parents=True)
    (cache / LLAMA).write_text("of another image")
    lay_out(model(tmp_path, [name, "Unknown"]), {"VLLM_CACHE_ROOT": str(tmp_path / "cache")}, made)
    assert {path.name: path.read_text() for path in cache.iterdir()} == {LLAMA: "of this image"}


@pytest.mark.parametrize("classes", [None, [], "LlamaForCausalLM", ["../x"], [3, {}], 3])
def test_what_is_no_class_that_vllm_knows_lays_nothing(tmp_path: Path, made: Path, classes: object) -> None:
    lay_out(model(tmp_path, classes), {"VLLM_CACHE_ROOT": str(tmp_path / "cache")}, made)
    assert not (tmp_path / "cache").exists()


def test_what_cannot_be_laid_costs_nothing_but_time(tmp_path: Path, made: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    folder = model(tmp_path, ["LlamaForCausalLM"])
    lay_out(folder, {"VLLM_CACHE_ROOT": str(tmp_path / "cache")}, made)
    lay_out(folder, {}, made)
    lay_out(folder, {"VLLM_CACHE_ROOT": str(tmp_path / "other")}, tmp_path / "an image of somebody else")
